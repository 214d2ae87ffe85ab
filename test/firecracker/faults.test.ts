/** The Firecracker driver against the stand-in: a fault at every step of a start. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { VmSpec } from "../../src/model/vm.ts";
import { FirecrackerApi } from "../../src/vmm/firecracker/api.ts";
import { FirecrackerDriver } from "../../src/vmm/firecracker/driver.ts";
import { standinHost, whyNoStandin, withFaults, type Faults } from "./support.ts";

const unusable = whyNoStandin();
if (unusable !== undefined) console.log(`skipped: Firecracker's stand-in: ${unusable}`);
const { dir, built, stateDir, kvm, makeDriver, makeSpec, leftovers } = standinHost();

describe.skipIf(unusable !== undefined)(
  "faults: a typed error, nothing left, the next start works",
  () => {
    const steps = [
      "start",
      "GET /",
      "PUT /metrics",
      "PUT /machine-config",
      "PUT /boot-source",
      "PUT /drives/disk0",
      "PUT /vsock",
      "PUT /balloon",
      "PUT /entropy",
      "PUT /actions",
    ];
    /** Start, expect the error, look for leftovers. */
    const failing = async (driver: FirecrackerDriver, spec: VmSpec): Promise<string> => {
      const error = await driver.start(spec, AbortSignal.timeout(30_000)).then(
        async (vm) => {
          await vm.kill();
          throw new Error("it started");
        },
        (caught: unknown) => caught,
      );
      const report = JSON.parse(JSON.stringify(error)) as {
        code: string;
        why?: string;
        fix?: string;
      };
      expect(report.why, JSON.stringify(error)).toBeTruthy();
      expect(report.fix).toBeTruthy();
      expect(await leftovers(spec)).toEqual([]);
      return report.code;
    };
    const faulty = (name: string, faults: Faults, startTimeoutMs = 1500) =>
      new FirecrackerDriver({
        stateDir,
        kvm,
        startTimeoutMs,
        binDir: withFaults(built, join(dir, name), faults),
      });

    test.each(steps)("a crash at %s", async (step) => {
      const code = await failing(
        faulty(`crash-${steps.indexOf(step)}`, { crashAt: step }),
        makeSpec(),
      );
      expect(code).toBe("ERR_VMM_START");
    });

    test.each(["start", "GET /"])("hanging at %s", async (step) => {
      const code = await failing(
        faulty(`hang-${steps.indexOf(step)}`, { hangAt: step }),
        makeSpec(),
      );
      expect(code).toBe("ERR_VMM_API_TIMEOUT");
    });

    test("hanging at any other call ends by that call's time limit or by an abort", async () => {
      const spec = makeSpec();
      const driver = faulty("hang-vsock", { hangAt: "PUT /vsock" });
      const stop = new AbortController();
      const starting = driver.start(spec, stop.signal);
      const log = join(spec.dir, "jail", "firecracker", spec.id, "root", "run", "api.sock");
      while (!existsSync(log)) await new Promise((done) => setTimeout(done, 10));
      stop.abort(new Error("enough"));
      await expect(starting).rejects.toThrow("enough");
      expect(await leftovers(spec)).toEqual([]);
      const api = new FirecrackerApi(join(dir, "nobody.sock"));
      await expect(api.call({ method: "GET", path: "/" })).rejects.toMatchObject({
        code: "ERR_VMM_API",
      });
    });

    test("a refusal carries the call, the status and the reason", async () => {
      const spec = makeSpec();
      const driver = faulty("refuse", { refuseAt: "PUT /boot-source" });
      await expect(driver.start(spec, AbortSignal.timeout(30_000))).rejects.toMatchObject({
        code: "ERR_VMM_API",
        why: expect.stringMatching(
          /^The stand-in was told to refuse this\. The VMM's log ends with: stand-in 1\.16\.1/,
        ),
        details: { call: "PUT /boot-source", status: 400 },
      });
      expect(await leftovers(spec)).toEqual([]);
    });

    test("a program that is missing, too old, or something else", async () => {
      const spec = makeSpec();
      const cases: [string, string][] = [
        [join(dir, "nowhere", "firecracker"), "There is no"],
        [
          join(withFaults(built, join(dir, "old"), { version: "1.9.1" }), "firecracker"),
          "1.10.0 or later",
        ],
        ["/bin/true", "does not say that it is Firecracker"],
      ];
      for (const [firecracker, why] of cases) {
        const driver = new FirecrackerDriver({ stateDir, firecracker, kvm });
        const probe = await driver.probe();
        expect(probe).toMatchObject({ usable: false });
        expect(probe.reason).toContain(why);
        expect(await failing(driver, spec)).toBe("ERR_DRIVER_UNUSABLE");
      }
    });

    test("a jail left over by a crash does not stop the next start", async () => {
      const spec = makeSpec();
      const root = join(spec.dir, "jail", "firecracker", spec.id, "root");
      mkdirSync(join(root, "run"), { recursive: true });
      writeFileSync(join(root, "firecracker.pid"), "1");
      writeFileSync(join(root, "run", "api.sock"), "");
      const driver = makeDriver();
      const vm = await driver.start(spec, AbortSignal.timeout(30_000));
      await vm.kill();
      await driver.cleanup(spec);
      expect(await leftovers(spec)).toEqual([]);
    });

    test("a Firecracker that nobody remembers is found by its jail", async () => {
      const spec = makeSpec();
      const vm = await makeDriver().start(spec, AbortSignal.timeout(30_000));
      const report = await makeDriver().cleanup(spec);
      expect(report.removed).toContain(`process ${vm.process.pid}`);
      await vm.exited;
      expect(await leftovers(spec)).toEqual([]);
    });

    test("user ids used up", async () => {
      const spec = makeSpec();
      const uids = { first: 1_999_999_000, count: 1 };
      const driver = new FirecrackerDriver({ stateDir, binDir: built, kvm, uids });
      const vm = await driver.start(spec, AbortSignal.timeout(30_000));
      const second = makeSpec();
      expect(await failing(driver, second)).toBe("ERR_VMM_UIDS");
      await vm.kill();
      await driver.cleanup(spec);
      const again = await driver.start(second, AbortSignal.timeout(30_000));
      expect(again.isolation.uid).toBe(uids.first);
      await again.kill();
      await driver.cleanup(second);
    });

    test("a kernel that is none: refused by Firecracker, nothing left", async () => {
      const kernel = join(dir, "not-a-kernel");
      writeFileSync(kernel, "text");
      expect(await failing(makeDriver(), { ...makeSpec(), kernel })).toBe("ERR_VMM_API");
    });

    test("a missing disk, and a full disk", async () => {
      const spec = makeSpec();
      rmSync(join(spec.dir, "upper.img"));
      expect(await failing(makeDriver(), spec)).toBe("ERR_VMM_START");
      const small = join(dir, "small");
      mkdirSync(small);
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", small]);
      try {
        const full = makeSpec();
        const home = join(small, full.id);
        mkdirSync(home);
        const code = await failing(makeDriver(), { ...full, dir: home, disks: [] });
        expect(code).toBe("ERR_VMM_JAIL");
      } finally {
        execFileSync("umount", [small]);
      }
    });

    test("a snapshot that is damaged ends the process; nothing is left", async () => {
      const spec = makeSpec();
      const files = { state: join(dir, "bad.state"), memory: join(dir, "bad.memory") };
      writeFileSync(files.state, "rubbish");
      writeFileSync(files.memory, "");
      const driver = makeDriver();
      const signal = AbortSignal.timeout(30_000);
      await expect(driver.restore(spec, files, signal)).rejects.toMatchObject({
        code: "ERR_VMM_START",
        details: { call: "PUT /snapshot/load" },
      });
      expect(await leftovers(spec)).toEqual([]);
    });
  },
);
