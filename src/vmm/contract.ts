/**
 * What every driver must do: one suite, run by each of them with its own way to make VMs.
 * A test that a driver cannot pass is skipped by name, with the reason.
 */
import { randomBytes } from "node:crypto";
import { readFileSync, readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import type { VmSpec } from "../model/vm.ts";
import { bootTimeoutMs } from "../util/boot-timeout.ts";
import { identityOf, isAlive } from "../util/process-identity.ts";
import type { Driver, RunningVm } from "./driver.ts";

/** What a driver says of the suite. */
export interface ContractOptions {
  /** Test name → why this driver cannot pass it. */
  skip?: Record<string, string>;
  /** Milliseconds until an agent must have answered; default VMSAN_BOOT_TIMEOUT, else 60 s. */
  bootMs?: number;
}

/** A fresh specification for each call; its `dir` may or may not exist. */
export type MakeSpec = () => VmSpec | Promise<VmSpec>;

/** One session's beginning by hand, so that vmm/ needs nothing of agent/: RESET and its echo. */
async function echo(stream: Duplex, token: Buffer, signal: AbortSignal): Promise<void> {
  const expected = Buffer.concat([token, randomBytes(16)]);
  let seen = Buffer.alloc(0);
  await new Promise<void>((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
    stream.on("error", reject);
    stream.on("close", () => reject(new Error("closed before the echo")));
    stream.on("data", (chunk: Buffer) => {
      seen = Buffer.concat([seen, chunk]);
      if (seen.includes(expected)) resolve();
    });
    stream.write(Buffer.concat([Buffer.from("VMSAN-CHANNEL-1\n"), expected]));
  });
}

/** Whether the stream ends or is cut. */
async function closed(stream: Duplex): Promise<void> {
  if (stream.destroyed) return;
  stream.resume();
  stream.on("error", () => undefined);
  await new Promise((resolve) => stream.once("close", resolve));
}

/**
 * Declare the suite.
 * @param name of the driver, for the report
 * @param makeDriver called again for "another daemon": must find the VMs of an earlier one
 */
export function driverContract(
  name: string,
  makeDriver: () => Driver | Promise<Driver>,
  makeSpec: MakeSpec,
  options: ContractOptions = {},
): void {
  const skip = options.skip ?? {};
  const bootMs = options.bootMs ?? bootTimeoutMs(60_000);
  const check = (title: string, body: () => Promise<void>): void => {
    const why = skip[title];
    if (why === undefined) test(title, body, 4 * bootMs);
    else test.skip(`${title} (${why})`, body);
  };

  describe(`driver contract: ${name}`, () => {
    let driver: Driver;
    const running: { vm: RunningVm; spec: VmSpec }[] = [];
    const never = new AbortController().signal;

    const start = async (
      signal = never,
    ): Promise<{ vm: RunningVm; spec: VmSpec; token: Buffer }> => {
      const spec = await makeSpec();
      const vm = await driver.start(spec, signal);
      running.push({ vm, spec });
      return { vm, spec, token: randomBytes(16) };
    };
    /** A stream on which the agent has answered. */
    const reach = async (vm: RunningVm, token: Buffer): Promise<Duplex> => {
      const signal = AbortSignal.timeout(bootMs);
      const stream = await vm.connect(signal);
      await echo(stream, token, signal);
      return stream;
    };

    beforeAll(async () => {
      driver = await makeDriver();
    });
    afterEach(async () => {
      for (const { vm, spec } of running.splice(0)) {
        await vm.kill();
        await driver.cleanup(spec);
      }
    });

    check("says what it is", async () => {
      const probe = await driver.probe();
      expect(probe.usable, probe.reason).toBe(true);
      expect(probe.reason).not.toBe("");
      expect(driver.name).not.toBe("");
    });

    check("a started VM is a process whose agent answers", async () => {
      const { vm, token } = await start();
      expect(isAlive(vm.process)).toBe(true);
      const stream = await reach(vm, token);
      stream.destroy();
      expect(isAlive(vm.process)).toBe(true);
    });

    check("the agent answers again after each abrupt disconnect", async () => {
      const { vm, token } = await start();
      for (let i = 0; i < 5; i += 1) {
        const stream = await reach(vm, token);
        stream.write(randomBytes(20_000));
        stream.destroy();
        await closed(stream);
      }
    });

    check("an agent that has not answered can be given up and tried again", async () => {
      const { vm, token } = await start();
      await expect(vm.connect(AbortSignal.abort(new Error("enough")))).rejects.toThrow("enough");
      (await reach(vm, token)).destroy();
    });

    check("two VMs do not disturb one another", async () => {
      const [one, two] = [await start(), await start()];
      (await reach(one.vm, one.token)).destroy();
      await one.vm.kill();
      (await reach(two.vm, two.token)).destroy();
      expect(isAlive(two.vm.process)).toBe(true);
    });

    check("kill ends the process, streams and later connects, and may be repeated", async () => {
      const { vm, token } = await start();
      const stream = await reach(vm, token);
      await vm.kill();
      await vm.exited;
      await closed(stream);
      expect(isAlive(vm.process)).toBe(false);
      await vm.kill();
      await expect(vm.connect(AbortSignal.timeout(10_000))).rejects.toMatchObject({
        code: "ERR_VM_NOT_RUNNING",
      });
    });

    check("an end from outside is noticed", async () => {
      const { vm } = await start();
      process.kill(vm.process.pid, "SIGKILL");
      const exit = await vm.exited;
      // A process that is not the daemon's own child (behind a jailer) does not tell how it ended.
      expect([exit.signal ?? "SIGKILL", isAlive(vm.process)]).toEqual(["SIGKILL", false]);
    });

    check("another daemon takes the VM over", async () => {
      const { vm, spec, token } = await start();
      (await reach(vm, token)).destroy();
      const other = await makeDriver();
      const adopted = await other.adopt(spec, vm.process);
      if (adopted === undefined) throw new Error("not adopted");
      expect(adopted.process).toEqual(vm.process);
      (await reach(adopted, token)).destroy();
      await adopted.kill();
      await adopted.exited;
      await vm.exited;
      expect(await other.adopt(spec, vm.process)).toBeUndefined();
    });

    check("a process that only has the same number is not adopted", async () => {
      const spec = await makeSpec();
      const self = identityOf(process.pid);
      if (self === undefined) throw new Error("no identity of our own");
      const other = { ...self, startTime: self.startTime - 1 };
      expect(await driver.adopt(spec, other)).toBeUndefined();
    });

    check("pause holds the guest, resume lets it go on", async () => {
      const { vm, token } = await start();
      (await reach(vm, token)).destroy();
      await vm.pause();
      // Where the guest itself takes connections (vsock) there is not even a stream.
      const held = AbortSignal.timeout(700);
      let stream: Duplex | undefined;
      const attempt = async (): Promise<void> => {
        stream = await vm.connect(held);
        await echo(stream, token, held);
      };
      await expect(attempt()).rejects.toThrow();
      await vm.resume();
      stream?.destroy();
      (await reach(vm, token)).destroy();
    });

    check("a paused VM can be killed", async () => {
      const { vm } = await start();
      await vm.pause();
      await vm.kill();
      await vm.exited;
    });

    check("an aborted start leaves nothing", async () => {
      const spec = await makeSpec();
      const before = readdirOf(spec.dir);
      await expect(driver.start(spec, AbortSignal.abort(new Error("enough")))).rejects.toThrow(
        "enough",
      );
      const late = new AbortController();
      const starting = driver.start(spec, late.signal);
      late.abort(new Error("enough"));
      // It may have been too late to abort: then it is a running VM like any other.
      const vm = await starting.catch(() => undefined);
      await vm?.kill();
      await driver.cleanup(spec);
      expect(processesIn(spec.dir)).toEqual([]);
      expect(readdirOf(spec.dir).filter((file) => file.endsWith(".sock"))).toEqual(
        before.filter((file) => file.endsWith(".sock")),
      );
    });

    check("cleanup after an end removes sockets and may be repeated", async () => {
      const { vm, spec } = await start();
      await vm.kill();
      expect((await driver.cleanup(spec)).failed).toEqual([]);
      expect(await driver.cleanup(spec)).toMatchObject({ failed: [] });
      expect(readdirOf(spec.dir).filter((file) => file.endsWith(".sock"))).toEqual([]);
      expect(processesIn(spec.dir)).toEqual([]);
    });

    check("the console can be read", async () => {
      const { vm, spec, token } = await start();
      (await reach(vm, token)).destroy();
      expect(() => readFileSync(driver.consolePath(spec))).not.toThrow();
    });

    check("a snapshot becomes a VM again, or is refused", async () => {
      const { vm, spec, token } = await start();
      (await reach(vm, token)).destroy();
      const files = { state: join(spec.dir, "s.state"), memory: join(spec.dir, "s.memory") };
      if (!driver.capabilities.snapshots) {
        await expect(vm.snapshot(files, "full")).rejects.toMatchObject({
          code: "ERR_DRIVER_UNSUPPORTED",
        });
        return;
      }
      await vm.pause();
      await vm.snapshot(files, "full");
      await vm.kill();
      await driver.cleanup(spec);
      const again = await driver.restore(spec, files, never);
      running.push({ vm: again, spec });
      await again.resume();
      (await reach(again, token)).destroy();
    });
  });
}

/** Names in a directory; none when it does not exist. */
function readdirOf(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch {
    // ENOENT: nothing is there, which is the answer.
    return [];
  }
}

/** Process IDs whose working directory or command line is in `dir`. */
function processesIn(dir: string): string[] {
  return readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return false;
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, "utf8");
      return command.includes(`${dir}/`) || readlinkSync(`/proc/${pid}/cwd`).startsWith(dir);
    } catch {
      // ENOENT, ESRCH: it has ended meanwhile.
      return false;
    }
  });
}
