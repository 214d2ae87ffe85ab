/**
 * Commands that this gateway holds: one guest stream each, whatever number of clients listen. Without
 * listeners output is dropped and the command goes on; a gateway that comes after takes them up again.
 */
import { forgetStream, listStreams } from "../../../agent/commands.ts";
import type { StreamExit, StreamInfo } from "../../../agent/spec.ts";
import type { GuestStream, StreamOptions } from "../../../agent/streams.ts";
import type { ExecOptions } from "../../../client/guest/commands.ts";
import type { Vm } from "../../../client/vm.ts";
import { E2bError } from "../errors.ts";
import type { ReplyStream } from "./connect.ts";
import { DeadSandbox } from "./dead-sandbox.ts";

/** Somebody who is told what a command prints. */
export interface Listener {
  /** Resolves when it takes more; a slow one slows the command. */
  output(name: "stdout" | "stderr", bytes: Buffer): Promise<void>;
}

/** One held command. */
export class LiveProcess {
  readonly stream: GuestStream;
  /** Number of the process in the guest. */
  readonly pid: Promise<number>;
  readonly tty: boolean;
  private readonly listeners = new Set<Listener>();

  /** @param open starts the stream or attaches to it with these options */
  constructor(open: (options: StreamOptions) => GuestStream, tty: boolean, pid?: number) {
    this.tty = tty;
    let started: (pid: number) => void = () => undefined;
    const told = new Promise<number>((resolve) => (started = resolve));
    const hand =
      (name: "stdout" | "stderr") =>
      async (bytes: Buffer): Promise<void> => {
        if (this.listeners.size === 0) return;
        const copy = Buffer.from(bytes);
        await Promise.all([...this.listeners].map((listener) => listener.output(name, copy)));
      };
    this.stream = open({
      onStdout: hand("stdout"),
      onStderr: hand("stderr"),
      onStarted: (value) => started(value ?? 0),
    });
    this.pid = pid === undefined ? this.startedOr(told) : Promise.resolve(pid);
    this.pid.catch(() => undefined);
  }

  private async startedOr(told: Promise<number>): Promise<number> {
    await this.stream.started;
    return await told;
  }

  /** Tell somebody what is printed from now on. @returns ends that */
  listen(listener: Listener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Give it input, all of which the guest has when this resolves. */
  async write(bytes: Buffer): Promise<void> {
    const { stdin } = this.stream;
    if (!stdin.writable) throw new E2bError("failed_precondition", "the process takes no input");
    await new Promise<void>((resolve, reject) => {
      stdin.write(bytes, (error) => (error ? reject(error) : resolve()));
    });
  }
}

/** The commands that are held. */
export class LiveProcesses {
  private readonly held = new Map<string, LiveProcess>();

  private keep(vm: Vm, live: LiveProcess): LiveProcess {
    const key = `${vm.id}/${live.stream.id}`;
    this.held.set(key, live);
    const over = (): void => void this.held.delete(key);
    live.stream.exit.then(async () => {
      over();
      // Its end was told; the VM may be gone by now, and the stream with it.
      await forgetStream(vm.transport, live.stream.id).catch(() => undefined);
    }, over);
    return live;
  }

  /** Start a command; it goes on without its client. */
  start(vm: Vm, argv: readonly string[], options: ExecOptions): LiveProcess {
    const open = (io: StreamOptions): GuestStream =>
      vm.spawn(argv, { ...options, detach: true }, io);
    return this.keep(vm, new LiveProcess(open, options.tty !== undefined));
  }

  /** A command that runs, from its present output on. */
  of(vm: Vm, info: StreamInfo): LiveProcess {
    const known = this.held.get(`${vm.id}/${info.id}`);
    if (known !== undefined) return known;
    const from = { stdout: info.stdout.end, stderr: info.stderr.end };
    const open = (io: StreamOptions): GuestStream => vm.attach(info.id, { ...io, from });
    return this.keep(vm, new LiveProcess(open, info.tty, info.pid));
  }
}

/** End a stream that failed: with its error, or with its sandbox if that is no more. @throws DeadSandbox when nothing was sent */
export async function failStream(vm: Vm, replies: ReplyStream, error: unknown): Promise<void> {
  const alive =
    !(error instanceof DeadSandbox) &&
    (await vm.refresh().then(
      ({ status }) => status === "running",
      () => false,
    ));
  if (alive) replies.end(error);
  else if (!replies.cut()) throw new DeadSandbox(vm.id);
}

/**
 * How a command ended, in envd's words.
 * @throws DeadSandbox for one that has ended with its sandbox: a guest with volumes ends its commands itself before it goes
 */
export async function endEvent(vm: Vm, { exitCode, signal }: StreamExit): Promise<object> {
  if (signal === undefined) {
    const status = `exit status ${exitCode}`;
    return { exitCode, exited: true, status, ...(exitCode === 0 ? {} : { error: status }) };
  }
  try {
    // What is about to go is still listed, but nobody is let in any more.
    await listStreams(vm.transport);
  } catch {
    throw new DeadSandbox(vm.id);
  }
  const names: Record<string, string> = { SIGKILL: "killed", SIGTERM: "terminated" };
  const status = `signal: ${names[signal] ?? signal.slice(3).toLowerCase()}`;
  return { exitCode: -1, exited: false, status, error: status };
}
