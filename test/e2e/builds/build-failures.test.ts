/**
 * Builds that go wrong: interrupted at each phase, with the daemon or the VMM killed, on full disks, with commands
 * that fork, fill the disk and flood their output. Each ends with a code, leaves nothing and the cache whole; another
 * VM goes on. VMSAN_TEST_BUILD_KILLS=N runs it, with N kills at random moments in the end (VMSAN_TEST_SEED repeats
 * them); a quarter of an hour under emulation without them.
 */
import { existsSync, mkdtempSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { baseImage } from "../../builds/cases.ts";
import { BASE, LONG } from "../../builds/compare.ts";
import { booted, installation, temporary } from "../../fixtures/ladder.ts";
import { put, tool } from "../images.ts";
import { freshDir, processesOf, removeDir, vmsan, vmsanOk } from "../support.ts";
import type { Outcome } from "../support.ts";

const wanted = process.env["VMSAN_TEST_BUILD_KILLS"];
const KILLS = Number(wanted ?? "0");
const SEED = Number(process.env["VMSAN_TEST_SEED"] ?? Date.now() % 1_000_000);
const reason =
  "VMSAN_TEST_BUILD_KILLS=N runs them: a quarter of an hour under emulation, and more with kills";
if (wanted === undefined) console.warn(`builds that go wrong are left out: ${reason}`);

/** For what the daemon does behind a command that was interrupted. */
const SOON = { timeout: 300_000, interval: 500 };
/** Steps that every build here has, so that they are cached when the cache is whole. */
const COMMON = `FROM ${BASE}
RUN i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo "content of $i" >/kept$i; done; cat /kept* | md5sum >/sum
`;
/** A step that fails when a cached layer is not what it was. */
const CHECK = `RUN [ "$(cat /kept* | md5sum)" = "$(cat /sum)" ] && [ $(cat /kept* | wc -l) = 200 ]\n`;

/** Random numbers below 1, the same for the same seed. */
let state = SEED;
function random(): number {
  state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
  return state / 2 ** 31;
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // ESRCH: it has ended by itself.
  }
}

describe.skipIf(wanted === undefined)(`builds that go wrong (${reason})`, () => {
  const made = installation("disks");
  const place = temporary();
  const other = booted(made, { memory: 128, name: "other" });
  let count = 0;
  let archive = "";

  beforeAll(async () => {
    archive = await baseImage(place.path, BASE);
    await vmsanOk(["image", "load", "-i", archive], { dir: made.dir });
  }, LONG);

  /** Build what these steps make of the common ones. */
  async function build(
    steps: string,
    options: Parameters<typeof vmsan>[1] = {},
    words: string[] = [],
  ): Promise<Outcome> {
    const context = join(place.path, `context${(count += 1)}`);
    await put(join(context, "Dockerfile"), `${COMMON}${steps}`);
    if (words.includes("--large")) await tool("fallocate", "-l", "300M", join(context, "large"));
    const flags = words.filter((word) => word !== "--large");
    const progress = flags.includes("--progress") ? [] : ["--progress", "plain"];
    const argv = ["build", "--network", "none", ...progress, ...flags, context];
    try {
      return await vmsan(argv, { dir: made.dir, timeoutMs: LONG, ...options });
    } finally {
      await rm(context, { recursive: true, force: true });
    }
  }

  /** What is done when a build says something. */
  const once = (text: string, act: (pid: number) => void): Parameters<typeof vmsan>[1] => ({
    onProcess: (child) => {
      let said = "";
      let acted = false;
      child.stderr?.on("data", (chunk: Buffer) => {
        said += chunk.toString();
        if (acted || !said.includes(text)) return;
        acted = true;
        act(child.pid ?? 0);
      });
    },
  });

  /** The error code that a build ended with. */
  const codeOf = ({ stderr }: Outcome): string => /ERR_[A-Z_]+/.exec(stderr)?.[0] ?? stderr;

  const vmm = (): number =>
    Number(
      processesOf(made.dir)
        .find((line) => /qemu-system-/.test(line) && line.includes("2048M"))
        ?.split(" ")[0] ?? 0,
    );

  const killDaemon = async (): Promise<void> => {
    const info = await made.vmsan.daemon.info();
    if (info !== undefined) kill(info.pid);
  };

  /** The next build works, its cache is whole, and nothing of the ones before is left. */
  async function expectWhole(cached = true): Promise<void> {
    const outcome = await build(`${CHECK}RUN echo ${(count += 1)}\n`, {}, [
      "-t",
      "local.test/whole:1",
    ]);
    expect({ code: outcome.code, stderr: outcome.code === 0 ? "" : outcome.stderr }).toEqual({
      code: 0,
      stderr: "",
    });
    if (cached) expect(outcome.stderr).toContain("Using cache");
    await vi.waitFor(async () => {
      // A killed daemon's lease holds nothing any more, and goes with the next prune.
      const held = await readdir(join(made.dir, "images/leases"));
      expect(held.filter((name) => existsSync(`/proc/${name.split("-")[0]}`))).toEqual([]);
    }, SOON);
    const look = "ls -A /var/lib/vmsan-builds /run/vmsan-builds; buildah containers -q";
    const exec = ["exec", "--user", "root", "vmsan-builder", "--", "sh", "-c", look];
    const left = await vmsanOk(exec, { dir: made.dir });
    expect(left.split("\n").filter((line) => line !== "" && !line.endsWith(":"))).toEqual([]);
    const ps = await vmsanOk(["ps", "--json", "vmsan-builder"], { dir: made.dir });
    expect(ps).not.toMatch(/"running":true[^}]*vmsan-build/);
    expect((await other.vm.exec(["echo", "goes on"])).stdout.toString()).toBe("goes on\n");
  }

  afterEach(async () => {
    expect((await other.vm.refresh()).status).toBe("running");
  });

  const interrupt = (pid: number): void => void process.kill(pid, "SIGINT");
  test.each([
    ["the builder's boot", '"phase":"boot"', "RUN true\n", []],
    ["sending the context", '"phase":"context"', "COPY . /\n", ["--large"]],
    ["a command", "MARK", "RUN echo MARK; sleep 10000\n", []],
    [
      "taking the result over",
      "taking the result over",
      "RUN dd if=/dev/urandom of=/r bs=1M count=64\n",
      [],
    ],
  ] as const)(
    "Ctrl-C during %s",
    async (_phase, text, steps, words) => {
      const flags = [...words, "--progress", "json", "-t", "local.test/interrupted:1"];
      const wait = text === "MARK" ? '"message":"MARK"' : text;
      const { code, stderr } = await build(steps, once(wait, interrupt), flags);
      expect({ code, stderr: code === 130 ? "" : stderr }).toEqual({ code: 130, stderr: "" });
      const inspect = await vmsan(["image", "inspect", "local.test/interrupted:1"], {
        dir: made.dir,
      });
      expect(inspect.stderr).toContain("ERR_IMAGE_NOT_FOUND");
      await expectWhole(text !== '"phase":"boot"');
    },
    LONG * 2,
  );

  test(
    "the daemon is killed",
    async () => {
      const outcome = await build(
        "RUN echo MARK; sleep 10000\n",
        once("\nMARK", () => void killDaemon()),
      );
      expect(codeOf(outcome)).toMatch(/^ERR_DAEMON_/);
      await expectWhole();
    },
    LONG * 2,
  );

  test(
    "the builder's VMM is killed, in a command and right after a build",
    async () => {
      const outcome = await build(
        "RUN echo MARK; sleep 10000\n",
        once("\nMARK", () => kill(vmm())),
      );
      expect(codeOf(outcome)).toMatch(/^ERR_(BUILD_BUILDER|AGENT_)/);
      await expectWhole();
      const fresh = ["--label", `new=${SEED}`, "--no-cache"];
      expect((await build("RUN echo again\n", {}, fresh)).code).toBe(0);
      kill(vmm());
      await expectWhole();
    },
    LONG * 3,
  );

  test(
    "commands that fill the disk, fork without end and flood their output",
    async () => {
      const full = await build(
        "RUN n=64; while [ $n -gt 0 ]; do fallocate -l ${n}00M /fill$n || true; n=$((n-1)); done; dd if=/dev/zero of=/more bs=1M\n",
      );
      expect(codeOf(full)).toBe("ERR_BUILD_FAILED");
      expect(full.stderr).toContain("No space left on device");
      await expectWhole();

      const flood = await build(
        "RUN yes 0123456789012345678901234567890123456789 | head -c 60000000\n",
      );
      expect({
        code: flood.code,
        stderr: flood.code === 0 ? "" : flood.stderr.slice(-2000),
      }).toEqual({ code: 0, stderr: "" });
      expect(flood.stderr).toContain("output beyond 16 MiB is left out");
      expect(flood.stderr.length).toBeLessThan(20_000_000);

      const bomb = "RUN echo MARK; f() { f & f & }; f; sleep 10000\n";
      const forked = await build(
        bomb,
        once("\nMARK", (pid) => void sleep(5000).then(() => interrupt(pid))),
      );
      // Its shell may have been told first that there can be no more processes.
      if (forked.code !== 130) expect(codeOf(forked)).toBe("ERR_BUILD_FAILED");
      await expectWhole();
    },
    LONG * 4,
  );

  test.runIf(process.getuid?.() === 0)(
    "this host's disk fills while something is built",
    async () => {
      const dir = mkdtempSync(join(tmpdir(), "vmsan-full-"));
      await tool("mount", "-t", "tmpfs", "-o", "size=1600m", "tmpfs", dir);
      let own = "";
      try {
        process.env["TMPDIR"] = dir;
        own = await freshDir();
        delete process.env["TMPDIR"];
        await vmsanOk(["image", "load", "-i", archive], { dir: own });
        const fill = "RUN dd if=/dev/zero of=/fill bs=1M count=3000\n";
        const filled = await build(fill, { dir: own });
        expect(codeOf(filled)).toBe("ERR_DISK_FULL");
        const next = await build("RUN echo room again\n", { dir: own });
        expect({ code: next.code, stderr: next.code === 0 ? "" : next.stderr }).toEqual({
          code: 0,
          stderr: "",
        });
      } finally {
        delete process.env["TMPDIR"];
        await removeDir(own);
        await tool("umount", "-l", dir);
        await rm(dir, { recursive: true, force: true });
      }
    },
    LONG * 3,
  );

  test.runIf(KILLS > 0)(
    `${KILLS} kills at random moments, seed ${SEED}`,
    async () => {
      const since = Date.now();
      await build("RUN echo measured\n");
      const takes = Date.now() - since;
      for (let round = 0; round < KILLS; round += 1) {
        const victim = ["client", "daemon", "vmm"][Math.floor(random() * 3)];
        const after = Math.round(random() * takes * 1.2);
        console.warn(`round ${round}: ${victim} after ${after} of ${takes} ms, seed ${SEED}`);
        let struck = Promise.resolve();
        const strike = async (pid: number): Promise<void> => {
          await sleep(after);
          if (victim === "client") kill(pid);
          else if (victim === "daemon") await killDaemon();
          else kill(vmm());
        };
        const outcome = await build(
          `RUN echo ${round} >/round; dd if=/dev/urandom of=/r bs=1M count=8\n`,
          {
            onProcess: (child) => void (struck = strike(child.pid ?? 0)),
          },
        );
        await struck;
        if (outcome.code !== 0 && victim !== "client") expect(codeOf(outcome)).toMatch(/^ERR_/);
        if (round % 3 === 2 || round === KILLS - 1)
          await vi.waitFor(async () => expectWhole(), SOON);
      }
    },
    LONG * (KILLS + 2),
  );
});
