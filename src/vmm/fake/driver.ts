/**
 * The fake driver: the agent as an ordinary process on a unix socket, for tests. Commands "in
 * the guest" run on the host, as the user who runs the daemon: there is no isolation at all.
 */
import { access, mkdir, rm } from "node:fs/promises";
import { constants } from "node:fs";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { VmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import type { IsolationReport, ProcessIdentity, VmSpec, MachineIdentity } from "../../model/vm.ts";
import { isAlive, isStopped, signalProcess } from "../../util/process-identity.ts";
import { connectUnix } from "../../util/socket-path.ts";
import type {
  CleanupReport,
  Driver,
  DriverCapabilities,
  DriverProbe,
  RunningVm,
  VmmExit,
} from "../driver.ts";
import { killAndWait, processExit, within } from "../exit.ts";
import { spawnDetached, tailOf } from "../launch.ts";
import { killLeftovers } from "../leftovers.ts";
import { descendantsOf } from "./descendants.ts";

const SOCKET = "agent.sock";
const CONSOLE = "console.log";
/** The home of the user that its commands run as: what a host's user has in theirs (profiles, locks) is not the guest's. */
const HOME = "home";
const START_TIMEOUT_MS = 20_000;

const capabilities: DriverCapabilities = {
  snapshots: false,
  diffSnapshots: false,
  diskLayers: false,
  diskGrowth: false,
  multipleStreams: true,
  isolation: [],
};

const isolation: IsolationReport = {
  mode: "none",
  uid: process.geteuid?.() ?? 0,
  seccomp: false,
  pidNamespace: false,
  networkNamespace: false,
  notEnforced: ["The fake driver runs commands on the host itself."],
};

/** An agent process that plays a VM. */
class FakeVm implements RunningVm {
  readonly process: ProcessIdentity;
  readonly isolation = isolation;
  readonly exited: Promise<VmmExit>;
  private readonly spec: VmSpec;

  constructor(spec: VmSpec, identity: ProcessIdentity, exited: Promise<VmmExit>) {
    this.spec = spec;
    this.process = identity;
    this.exited = exited;
  }

  /** {@inheritDoc RunningVm.connect} */
  async connect(signal: AbortSignal): Promise<Duplex> {
    for (;;) {
      signal.throwIfAborted();
      if (!isAlive(this.process)) throw notRunning(this.spec.id);
      try {
        return await connectUnix(join(this.spec.dir, SOCKET), signal);
      } catch (error) {
        // The agent has not bound its socket yet: wait, like for a guest that boots.
        if (!["ENOENT", "ECONNREFUSED"].includes(errnoOf(error) ?? "")) throw error;
      }
      await sleep(5, undefined, { signal });
    }
  }

  /** {@inheritDoc RunningVm.pause} Stops the agent and every process below it. */
  async pause(): Promise<void> {
    for (;;) {
      this.signalAll("SIGSTOP");
      for (let waited = 0; waited < 100; waited += 1) {
        if (isStopped(this.process)) return;
        await sleep(1);
      }
      // Caught in the middle of a fork, the agent waits for a child that was stopped as well: both go on a little.
      this.signalAll("SIGCONT");
      await sleep(5);
    }
  }

  /** {@inheritDoc RunningVm.resume} */
  async resume(): Promise<void> {
    this.signalAll("SIGCONT");
    await Promise.resolve();
  }

  /** {@inheritDoc RunningVm.snapshot} */
  async snapshot(): Promise<void> {
    return await Promise.reject(unsupported());
  }

  /** {@inheritDoc RunningVm.addLayer} */
  async addLayer(): Promise<void> {
    return await Promise.reject(unsupported());
  }

  /** {@inheritDoc RunningVm.growDisk} */
  async growDisk(): Promise<void> {
    return await Promise.reject(unsupported());
  }

  /** {@inheritDoc RunningVm.kill} Commands die with their agent, as in a VM. */
  async kill(): Promise<void> {
    // Stopped, the agent can start nothing while its processes are being ended.
    signalProcess(this.process, "SIGSTOP");
    for (let round = 0; round < 100; round += 1) {
      const below = descendantsOf(this.process.pid);
      if (below.length === 0) break;
      for (const identity of below) await killAndWait(identity);
    }
    await killAndWait(this.process);
    await within(this.exited, 2000);
  }

  private signalAll(signal: NodeJS.Signals): void {
    signalProcess(this.process, signal);
    for (const identity of descendantsOf(this.process.pid)) signalProcess(identity, signal);
  }
}

/** The error for a VM whose agent process is gone. */
function notRunning(id: string): VmsanError {
  return new VmsanError({
    code: "ERR_VM_NOT_RUNNING",
    message: `The VM ${id} does not run`,
    why: "Its process has ended.",
    fix: `Start it: vmsan start ${id}.`,
  });
}

/** The error for what a process cannot do. */
function unsupported(): VmsanError {
  return new VmsanError({
    code: "ERR_DRIVER_UNSUPPORTED",
    message: "Cannot snapshot a VM of the fake driver",
    why: "Its guest is an ordinary process.",
    fix: "Use the driver qemu or firecracker.",
  });
}

/** Runs the guest's agent as a process. */
export class FakeDriver implements Driver {
  readonly name = "fake";
  readonly capabilities = capabilities;
  private readonly agent: string;

  /** @param agent absolute path of the guest agent's binary */
  constructor(agent: string) {
    this.agent = agent;
  }

  /** {@inheritDoc Driver.probe} */
  async probe(): Promise<DriverProbe> {
    try {
      await access(this.agent, constants.X_OK);
    } catch (error) {
      return {
        usable: false,
        accelerator: "none",
        reason: `The guest agent cannot be run: ${messageOf(error)}.`,
        fix: "Build it: go build ./cmd/agent in guest/.",
      };
    }
    return { usable: true, accelerator: "none", reason: "Commands run on the host: for tests." };
  }

  /** {@inheritDoc Driver.start} */
  async start(spec: VmSpec, signal: AbortSignal): Promise<RunningVm> {
    signal.throwIfAborted();
    await mkdir(spec.dir, { recursive: true, mode: 0o700 });
    await this.removeFiles(spec);
    let identity: ProcessIdentity | undefined;
    try {
      const home = join(spec.dir, HOME);
      await mkdir(home, { recursive: true, mode: 0o700 });
      // A relative path: sockaddr_un is short, directories may be deep.
      const started = await spawnDetached([this.agent, "serve", "--unix", SOCKET, "--home", home], {
        cwd: spec.dir,
        log: join(spec.dir, CONSOLE),
        env: { HOME: home },
      });
      identity = started.identity;
      const vm = new FakeVm(spec, identity, processExit(identity, started.child));
      const limit = AbortSignal.timeout(START_TIMEOUT_MS);
      const socket = await vm.connect(AbortSignal.any([signal, limit]));
      socket.destroy();
      return vm;
    } catch (error) {
      if (identity !== undefined) await killAndWait(identity);
      const said = await tailOf(join(spec.dir, CONSOLE));
      await this.removeFiles(spec);
      if (signal.aborted) throw signal.reason;
      throw new VmsanError(
        {
          code: "ERR_VMM_START",
          message: `Cannot start the agent process of ${spec.id}`,
          why: said === "" ? messageOf(error) : `${messageOf(error)}. It said: ${said}`,
          fix: `Run it by hand: ${this.agent} serve --unix /tmp/agent.sock`,
        },
        error,
      );
    }
  }

  /** {@inheritDoc Driver.restore} */
  async restore(): Promise<RunningVm> {
    return await Promise.reject(unsupported());
  }

  /** {@inheritDoc Driver.machine} */
  async machine(): Promise<MachineIdentity> {
    return await Promise.reject(unsupported());
  }

  /** {@inheritDoc Driver.adopt} */
  async adopt(spec: VmSpec, identity: ProcessIdentity): Promise<RunningVm | undefined> {
    await Promise.resolve();
    if (!isAlive(identity)) return undefined;
    return new FakeVm(spec, identity, processExit(identity));
  }

  /** {@inheritDoc Driver.cleanup} */
  async cleanup(spec: VmSpec): Promise<CleanupReport> {
    const removed = (await killLeftovers(spec.dir, "--unix")).map((pid) => `process ${pid}`);
    await this.removeFiles(spec);
    return { removed, failed: [] };
  }

  /** {@inheritDoc Driver.consolePath} */
  consolePath(spec: VmSpec): string {
    return join(spec.dir, CONSOLE);
  }

  private async removeFiles(spec: VmSpec): Promise<void> {
    await rm(join(spec.dir, SOCKET), { force: true });
  }
}
