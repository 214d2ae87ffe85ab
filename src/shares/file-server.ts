/**
 * The process that serves a VM's shared directories. It speaks to the guest by a port of its own
 * and needs the daemon for nothing: a daemon that is killed or replaced interrupts no file. It ends
 * when its VMM does. It is known by its argument and its working directory, the VM's.
 */
import { realpathSync } from "node:fs";
import { copyFile, rename } from "node:fs/promises";
import { join, relative } from "node:path";
import type { ProcessIdentity } from "../model/vm.ts";
import { writeFileAtomic } from "../util/atomic.ts";
import { fileServerBinary } from "../util/package.ts";
import { isAlive, isStopped, signalProcess } from "../util/process-identity.ts";
import type { FileServerPort } from "../vmm/driver.ts";
import { processExit } from "../vmm/exit.ts";
import { spawnDetached } from "../vmm/launch.ts";
import { findLeftovers, killLeftovers } from "../vmm/leftovers.ts";

/** Name of the file with its orders in the VM's directory, and of its log. */
const ORDER = "shares.json";
const LOG = "shares.log";
/** Name of the file with what it knows of nodes and handles while the VM's memory is in a file. */
const STATE = "shares.state";
/** Milliseconds before one that has ended is started again. */
const AGAIN_MS = 500;
/** Milliseconds between looks at one, and how often in a row it may be found to stand still. */
const LOOK_MS = 5000;
const MAX_STILL = 4;

/** A directory of the host, or a file, that is served. */
export interface Directory {
  /** Absolute path. */
  source: string;
  readonly: boolean;
  /** It is a regular file, or its part is. */
  file: boolean;
  /** It is a volume's, which several VMs may write to. */
  volume: boolean;
  /** A path below it that is served instead of all of it. */
  part?: string;
  /** What all of it may take up on the disk, in bytes; absent: what the host has but for its reserve. */
  limit?: number;
}

/** A VM whose directories are served. */
export interface Served {
  id: string;
  /** Absolute path of its own directory. */
  dir: string;
  served: readonly Directory[];
  port: FileServerPort;
  /** The token of its channel, 32 hex digits. */
  token: string;
  /** Its VMM. */
  vmm: ProcessIdentity;
}

/** The file servers of one VMSAN_DIR. */
export class FileServers {
  private readonly own: string;
  private readonly log: (line: string) => void;
  private readonly lookMs: number;
  private readonly stopped = new Set<string>();

  /**
   * @param own absolute path of VMSAN_DIR, hidden from all guests
   * @param log receives a line when a file server has ended before its VM, or had to be ended
   * @param lookMs milliseconds between looks whether one stands still
   */
  constructor(own: string, log: (line: string) => void, lookMs = LOOK_MS) {
    this.own = own;
    this.log = log;
    this.lookMs = lookMs;
  }

  /** Serve a VM's directories from now until its end; one that serves them already goes on. */
  async serve(vm: Served): Promise<void> {
    this.stopped.delete(vm.id);
    const [running] = await findLeftovers(vm.dir, ORDER);
    if (running === undefined) await this.start(vm);
    else this.follow(vm, running, processExit(running));
  }

  /** End a VM's file server, if there is one. */
  async end(id: string, dir: string): Promise<void> {
    this.stopped.add(id);
    await killLeftovers(dir, ORDER);
  }

  /** Path of the file in which a VM's file server keeps what it knows. @param dir the VM's */
  known(dir: string): string {
    return join(dir, STATE);
  }

  /** Have a VM's next file server go on from what one has kept. @param dir the VM's @param from that file */
  async takeUp(dir: string, from: string): Promise<void> {
    const draft = join(dir, `.${STATE}-taken`);
    await copyFile(from, draft);
    await rename(draft, this.known(dir));
  }

  private async start(vm: Served): Promise<void> {
    const { socket, vsockPort = 0 } = vm.port;
    // Unix socket paths are short, and it works in this directory.
    const near = relative(vm.dir, socket);
    const order = {
      socket: near.startsWith("..") ? socket : near,
      vsockPort,
      token: vm.token,
      state: STATE,
      shares: vm.served.map((one) => ({ ...one, hidden: [realpathSync(this.own)] })),
    };
    await writeFileAtomic(join(vm.dir, ORDER), `${JSON.stringify(order)}\n`, 0o600);
    const { child, identity } = await spawnDetached([fileServerBinary(), ORDER], {
      cwd: vm.dir,
      log: join(vm.dir, LOG),
    });
    this.follow(vm, identity, processExit(identity, child));
  }

  /**
   * Start it again when it ends before its VM: the guest mounts anew by itself. One that has been stopped
   * (SIGSTOP) is ended: whoever uses the share in the guest would wait for it for ever, and cannot be killed.
   */
  private follow(vm: Served, server: ProcessIdentity, ended: Promise<unknown>): void {
    let still = 0;
    const look = setInterval(() => {
      still = isStopped(server) ? still + 1 : 0;
      if (still < MAX_STILL || !signalProcess(server, "SIGKILL")) return;
      this.log(`${vm.id}: its file server has been stopped (SIGSTOP) for a while; ended it`);
    }, this.lookMs);
    look.unref();
    void ended.then(() => {
      clearInterval(look);
      setTimeout(() => {
        if (this.stopped.has(vm.id) || !isAlive(vm.vmm)) return;
        this.log(`${vm.id}: its file server has ended; starting it again`);
        this.serve(vm).catch((error: unknown) =>
          this.log(`${vm.id}: no file server: ${String(error)}`),
        );
      }, AGAIN_MS).unref();
    });
  }
}
