/** One VM, as SDK users hold it. */
import { Readable } from "node:stream";
import type { Duplex } from "node:stream";
import type { CopyOptions, FillOptions, UnpackOptions } from "../agent/copy.ts";
import type { FileOptions, ReadOptions, WriteOptions } from "../agent/file-stream.ts";
import type { Endpoint } from "../agent/ports.ts";
import { attachStream, startStream } from "../agent/streams.ts";
import type { AttachOptions, GuestStream, StreamOptions } from "../agent/streams.ts";
import type { GuestTransport } from "../agent/transport.ts";
import type { SnapshotView, SshView, VmView } from "../model/api.ts";
import type { CommitReport, CommitRequest, DiffEntry } from "../model/api/images.ts";
import { VmsanError } from "../model/errors.ts";
import type { NetworkPolicy } from "../model/policy.ts";
import type { ProcessLimit } from "../model/process.ts";
import { collected, commandLineOf, commandSpec } from "./guest/commands.ts";
import type { ExecOptions, ExecOutput } from "./guest/commands.ts";
import { VmTransport } from "./guest/transport.ts";
import type { Hold } from "./hold.ts";
import type { Daemon, WorkOptions } from "./daemon.ts";
import { removeVm, startVm, stopVm, updateVm } from "./lives.ts";
import type { StartOptions, UpdateOptions } from "./lives.ts";
import { vmPath } from "./paths.ts";
import { stepUntil } from "./tracing/timeline.ts";
import { traceCommand } from "./tracing/tracing.ts";
import { Snapshots } from "./snapshots.ts";
import type { SnapshotOptions } from "./snapshots.ts";

/** How a VM becomes an image. */
export interface CommitOptions extends WorkOptions {
  /** Instructions of a Dockerfile that change the configuration, e.g. `CMD ["/bin/app"]`. */
  changes?: string[];
  /** For the image's history. */
  message?: string;
  author?: string;
}

/** Calls that change a state, which is then as they wanted it. */
const REPEATED = { repeat: true, doneIf: "ERR_VM_NOT_RUNNING" } as const;

/**
 * A microVM. Methods that change it keep {@link view} up to date; what copies files is loaded when
 * that is first asked for.
 */
export class Vm {
  /** What was known when this object was made or last refreshed. */
  view: VmView;
  /** The way to its agent: for commands, files and ports. */
  readonly transport: GuestTransport;
  private readonly daemon: Daemon;
  private readonly hold: Hold | undefined;

  constructor(daemon: Daemon, view: VmView, hold?: Hold) {
    this.daemon = daemon;
    this.view = view;
    this.hold = hold;
    this.transport = new VmTransport(daemon, view.id);
  }

  /** `vm-` and 8 hex digits. */
  get id(): string {
    return this.view.id;
  }

  /** Ask the daemon again. */
  async refresh(): Promise<VmView> {
    this.view = await this.daemon.call<VmView>("GET", vmPath(this.id));
    return this.view;
  }

  /** The image's command line: its entrypoint, then the given words or its own. */
  commandLine(words: readonly string[], entrypoint?: string): string[] {
    return commandLineOf(this.view, words, entrypoint);
  }

  /**
   * Start a command and talk to it. An empty `argv` is the user's login shell.
   * The stream survives broken connections and a restart of the daemon.
   */
  spawn(argv: readonly string[], options: ExecOptions = {}, io: StreamOptions = {}): GuestStream {
    const stream = startStream(this.transport, commandSpec(this.view, argv, options), io);
    traceCommand({ "vmsan.vm": this.id, "process.command": argv[0] }, stream.exit);
    return stream;
  }

  /** Attach to a command that runs, or has run and is kept. */
  attach(id: string, options: AttachOptions = {}): GuestStream {
    const stream = attachStream(this.transport, id, options);
    stepUntil("attach", stream.exit);
    return stream;
  }

  /**
   * Run a command to its end and collect what it prints.
   * @throws ERR_AGENT_NOT_FOUND, ERR_AGENT_NOT_EXECUTABLE …; a status other than 0 is no error
   */
  async exec(
    argv: readonly string[],
    options: ExecOptions & { input?: string | Uint8Array; signal?: AbortSignal } = {},
  ): Promise<ExecOutput> {
    return await collected(options, (more, io) => this.spawn(argv, more, io), argv[0]);
  }

  /**
   * Connect to something that listens in the guest, whatever the network policy is.
   * Its directions end on their own, as with TCP: who is done with it ends or destroys it.
   * @throws ERR_AGENT_DIAL when nothing listens there
   */
  async dial(endpoint: Endpoint): Promise<Duplex> {
    const { dialGuest } = await import("../agent/dial.ts");
    return await dialGuest(this.transport, endpoint);
  }

  /**
   * Connect to a TCP port on which something listens in the guest, on `localhost` at least: many servers listen on one
   * of its two addresses alone.
   * @throws ERR_AGENT_DIAL when nothing listens there
   */
  async dialLocal(port: number): Promise<Duplex> {
    try {
      return await this.dial({ network: "tcp", host: "127.0.0.1", port });
    } catch (error) {
      // The first address is the one that people know.
      return await this.dial({ network: "tcp", host: "::1", port }).catch(() => {
        throw error;
      });
    }
  }

  /**
   * A connection to a server of ssh in the guest, as its input and output. Nothing listens anywhere: the
   * connection is the agent's channel. Any user of the guest may log in with one of the keys.
   * @param authorizedKeys public keys, as lines of a file of that name
   */
  async ssh(authorizedKeys: readonly string[], io: StreamOptions = {}): Promise<GuestStream> {
    const { connectSsh } = await import("./ssh/connect.ts");
    const spec = {
      ...commandSpec(this.view, [], {}),
      kind: "ssh" as const,
      authorizedKeys: [...authorizedKeys],
    };
    const prepare = async (): Promise<unknown> => await this.prepareSsh();
    const stream = await connectSsh(prepare, this.transport, spec, io);
    stepUntil("ssh", stream.exit);
    return stream;
  }

  /** Have the guest ready for {@link ssh}: a VM that sleeps is woken. @returns its public host key */
  async prepareSsh(): Promise<string> {
    const path = vmPath(this.id, "ssh");
    return (await this.daemon.call<SshView>("POST", path, { repeat: true })).hostKey;
  }

  /** The public key by which the VM's server of ssh is known; a clone has another. Wakes and starts nothing. */
  async sshHostKey(): Promise<string> {
    const path = vmPath(this.id, "ssh");
    return (await this.daemon.call<SshView>("GET", path)).hostKey;
  }

  /** Put a network policy in force. */
  async setPolicy(policy: NetworkPolicy): Promise<void> {
    this.view = await this.daemon.call<VmView>("PUT", vmPath(this.id, "policy"), { body: policy });
  }

  /**
   * Let its time limit count from now on; a VM without one goes on without.
   * @param timeoutMs another limit from now on, in milliseconds
   * @throws ERR_VM_NOT_RUNNING, also while it is being stopped at its limit
   */
  async extendTimeout(timeoutMs?: number): Promise<void> {
    this.view = await this.daemon.call<VmView>("POST", vmPath(this.id, "timeout"), {
      body: timeoutMs === undefined ? {} : { timeoutMs },
      repeat: true,
    });
  }

  /** Take a snapshot of it; see {@link Snapshots.create}. */
  async snapshot(options: SnapshotOptions = {}): Promise<SnapshotView> {
    return await new Snapshots(this.daemon).create(this.id, options);
  }

  /**
   * Make an image of its own image and what it has changed since. A running VM stands still for an
   * instant.
   * @param name of the new image, e.g. `app:2`
   * @throws ERR_VM_DISK_MODE, ERR_IMAGE_*, ERR_CHANGES_*
   */
  async commit(name: string, options: CommitOptions = {}): Promise<CommitReport> {
    const { changes = [], message, author, ...work } = options;
    const body: CommitRequest = {
      name,
      changes,
      ...(message === undefined ? {} : { message }),
      ...(author === undefined ? {} : { author }),
    };
    const path = vmPath(this.id, "commit");
    return await this.daemon.streamed<CommitReport>("POST", path, { body, repeat: true, ...work });
  }

  /** What it has changed of its image: added, changed and deleted names, by path. */
  async diff(work: WorkOptions = {}): Promise<DiffEntry[]> {
    const path = vmPath(this.id, "diff");
    type Reply = { changes: DiffEntry[] };
    return (await this.daemon.streamed<Reply>("GET", path, { repeat: true, ...work })).changes;
  }

  /** Put it to sleep: its memory goes to files, its process ends; whoever needs it wakes it. */
  async suspend(work: WorkOptions = {}): Promise<void> {
    this.view = await this.daemon.streamed<VmView>("POST", vmPath(this.id, "suspend"), work);
  }

  /**
   * Take it back to a snapshot of it: files and memory are as they were; ID, name and ports stay.
   * @param snapshot its ID or name
   */
  async restore(snapshot: string, work: WorkOptions = {}): Promise<void> {
    const path = vmPath(this.id, "restore");
    this.view = await this.daemon.streamed<VmView>("POST", path, { body: { snapshot }, ...work });
  }

  /** Halt the VM's CPUs. */
  async pause(): Promise<void> {
    await this.daemon.call("POST", vmPath(this.id, "pause"), REPEATED);
  }

  /** Let a paused VM go on, wake a sleeping one. */
  async resume(): Promise<void> {
    await this.daemon.call("POST", vmPath(this.id, "resume"), REPEATED);
  }

  /**
   * Make its root read-only for everybody in the guest until it is started again. What is mounted besides (volumes,
   * memory) can still be written to.
   */
  async sealRoot(): Promise<void> {
    await this.transport.request("PUT", "/v1/seal", { body: {} });
  }

  /** Limits (setrlimit(2)) of all commands that are started in it from now on, until it is started again. */
  async setLimits(limits: readonly ProcessLimit[]): Promise<void> {
    await this.transport.request("PUT", "/v1/limits", { body: { limits } });
  }

  /** Start it again. @throws ERR_VM_NOT_STOPPED */
  async start(work: StartOptions = {}): Promise<void> {
    this.view = await startVm(this.daemon, this.id, work);
  }

  /** Change its size (the disk also while it runs) or its labels. @throws ERR_VM_NOT_STOPPED, ERR_DRIVER_UNSUPPORTED */
  async update(options: UpdateOptions): Promise<void> {
    this.view = await updateVm(this.daemon, this.id, options);
  }

  /** Stop it: gracefully first, by force after `graceMs` (default 10 s). */
  async stop(graceMs?: number): Promise<void> {
    await stopVm(this.daemon, this.id, graceMs);
  }

  /** Remove it with its disk, running or not. */
  async remove(): Promise<void> {
    try {
      await removeVm(this.daemon, this.id, true);
    } finally {
      this.letGo();
    }
  }

  /**
   * Copy files and trees of this host into the guest, as cp would; atomic at the destination.
   * @param destination in the guest; relative to the home of the user
   */
  async upload(
    sources: readonly string[],
    destination: string,
    options: CopyOptions = {},
  ): Promise<void> {
    const { upload } = await import("../agent/copy.ts");
    await upload(this.transport, sources, destination, this.asUser(options));
  }

  /**
   * Unpack a tar archive in a directory of the guest.
   * @param archive not compressed
   * @param path absolute
   */
  async unpack(
    archive: AsyncIterable<Buffer>,
    path: string,
    options: UnpackOptions = {},
  ): Promise<void> {
    const { unpack } = await import("../agent/copy.ts");
    await unpack(this.transport, archive, path, this.asUser(options));
  }

  /**
   * Have an archive's files be at a place of the guest, from memory there and read-only: whoever runs in it cannot lead them
   * elsewhere, by links or by moving the place. The first time they are mounted there; again, they are others.
   * @param archive not compressed
   * @param path absolute
   */
  async fill(
    archive: AsyncIterable<Buffer>,
    path: string,
    options: FillOptions = {},
  ): Promise<void> {
    const { fill } = await import("../agent/copy.ts");
    await fill(this.transport, archive, path, options);
  }

  /** Copy a file or tree of the guest to this host, as cp would: all of it, or nothing. */
  async download(path: string, destination: string, options: CopyOptions = {}): Promise<void> {
    const { download } = await import("../agent/copy.ts");
    await download(this.transport, path, destination, this.asUser(options));
  }

  /** Read one file of the guest. @param onData is awaited: a slow reader slows the guest */
  async readFile(
    path: string,
    onData: (bytes: Buffer) => void | Promise<void>,
    options: ReadOptions = {},
  ): Promise<void> {
    const { readFile } = await import("../agent/file-stream.ts");
    await readFile(this.transport, await this.inHome(path, options), onData, this.asUser(options));
  }

  /**
   * Open one file of the guest; a slow reader slows the guest.
   * @throws ERR_AGENT_FILE when it cannot be read
   */
  async openFile(path: string, options: FileOptions = {}): Promise<Readable> {
    const { openFile } = await import("../agent/file-stream.ts");
    return await openFile(this.transport, await this.inHome(path, options), this.asUser(options));
  }

  /** Write one file of the guest; it appears under its name when it is whole. */
  async writeFile(
    path: string,
    source: AsyncIterable<Buffer>,
    options: WriteOptions = {},
  ): Promise<void> {
    const { writeFile } = await import("../agent/file-stream.ts");
    await writeFile(this.transport, await this.inHome(path, options), source, this.asUser(options));
  }

  /** A file's path in the guest: one that is not absolute begins in the user's home. */
  private async inHome(path: string, options: FileOptions): Promise<string> {
    if (path.startsWith("/")) return path;
    const { guestPath } = await import("../agent/copy.ts");
    return await guestPath(this.transport, path, this.asUser(options));
  }

  /** Files are read and written as the user that commands run as, unless said otherwise. */
  private asUser<T extends FileOptions>(options: T): T {
    const user = options.user ?? this.view.defaults.user ?? this.view.image?.config.user;
    return user === undefined || user === "" ? options : { ...options, user };
  }

  /** The guest's console output as a stream. */
  async console(options: { follow?: boolean; signal?: AbortSignal } = {}): Promise<Readable> {
    const { follow = false, signal } = options;
    const { resumed } = await import("./resumed.ts");
    const bytes = resumed((from) => {
      const path = vmPath(this.id, `console?follow=${follow}&from=${from}`);
      return this.daemon.download("GET", path, signal === undefined ? {} : { signal });
    });
    return Readable.from(bytes, { objectMode: false });
  }

  /** The decisions of the VM's network policy, as lines of JSON. */
  async decisions(options: { follow?: boolean; signal?: AbortSignal } = {}): Promise<Readable> {
    const { follow = false, signal } = options;
    // What was kept is gone with the daemon that kept it: the next one's is all new.
    const { resumed } = await import("./resumed.ts");
    const lines = resumed(() => {
      const path = vmPath(this.id, `decisions?follow=${follow}`);
      return this.daemon.download("GET", path, signal === undefined ? {} : { signal });
    });
    return Readable.from(lines, { objectMode: false });
  }

  /** Let go of an ephemeral VM: the daemon removes it once nobody holds it. */
  letGo(): void {
    this.hold?.release();
  }

  /** `await using vm = …` removes it at the end of the block. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.remove();
    } catch (error) {
      if (!(error instanceof VmsanError) || error.code !== "ERR_VM_NOT_FOUND") throw error;
    }
  }
}
