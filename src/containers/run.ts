/** One run of a container's main process: its output goes to the log and to whoever is attached. */
import { setTimeout as sleep } from "node:timers/promises";
import { forgetStream } from "../agent/commands.ts";
import type { StreamExit } from "../agent/spec.ts";
import type { GuestStream, StreamOptions } from "../agent/streams.ts";
import type { Vm } from "../client/vm.ts";
import type { OutputNumber } from "../agent/frames.ts";
import type { ContainerLog } from "./logs/container-log.ts";
import { isLost } from "./main.ts";

/** Somebody who is attached. */
export interface Sink {
  /** Resolves when it takes more: a slow one slows the container. */
  output(stream: OutputNumber, bytes: Buffer): Promise<void>;
  /** All has been handed over. */
  end(): void;
}

/** How a main process ended. */
export interface RunEnd {
  exitCode: number;
  oomKilled: boolean;
  /** It was not the process that ended but its VM. */
  error: string;
}

/** How often a VM is looked at whose agent does not answer, in milliseconds. */
const LOOK_MS = 250;

/** The end of a run whose VM has gone. */
const DIED: RunEnd = { exitCode: 137, oomKilled: false, error: "the microVM has ended" };

/** A main process that runs, held by this process. */
export class Run {
  readonly stream: GuestStream;
  /** Resolves once it has ended and every byte has been handed on; never rejects. */
  readonly ended: Promise<RunEnd>;
  private readonly vm: Vm;
  private readonly sinks: Set<Sink>;
  private up = false;
  private watching = false;
  private over = false;
  private died: (end: RunEnd) => void = () => undefined;

  /**
   * @param open starts the stream, or attaches to it
   * @param log where its output goes; undefined: nowhere
   * @param sinks whoever is attached; may change while it runs
   * @param complain told what goes wrong with the log, which ends nothing
   * @param prepared the log has begun with the stream already
   */
  constructor(
    vm: Vm,
    open: (options: StreamOptions) => GuestStream,
    log: ContainerLog | undefined,
    sinks: Set<Sink>,
    complain: (error: unknown) => void,
    prepared = false,
  ) {
    this.vm = vm;
    this.sinks = sinks;
    let ready: Promise<unknown> | undefined;
    const take =
      (stream: OutputNumber) =>
      async (bytes: Buffer): Promise<void> => {
        // The stream's buffer is used again.
        const copy = Buffer.from(bytes);
        await ready;
        await Promise.all([
          log?.append(stream === 1 ? "stdout" : "stderr", copy),
          ...[...sinks].map((sink) => sink.output(stream, copy)),
        ]);
      };
    this.stream = open({
      onStdout: take(1),
      onStderr: take(2),
      onGap: ({ stream, to }) => log?.skip(stream, to),
      onConnection: (up) => {
        this.up = up;
        if (!up) void this.watch();
      },
      // How long a daemon may be away; whether the VM is there is looked at below.
      reconnectMs: 24 * 3_600_000,
    });
    // What is printed comes later than this line, whatever the connection does.
    if (!prepared) ready = log?.begin(this.stream.id).catch(complain);
    const lost = new Promise<RunEnd>((resolve) => (this.died = resolve));
    this.ended = Promise.race([this.stream.exit.then(endOf, this.failed), lost]).then(
      async (end) => {
        this.over = true;
        await ready;
        await log?.close().catch(complain);
        for (const sink of this.sinks) sink.end();
        return end;
      },
    );
  }

  private readonly failed = async (error: unknown): Promise<RunEnd> => {
    const message = error instanceof Error ? error.message : String(error);
    return await Promise.resolve({ ...DIED, error: message });
  };

  /** Find out whether a VM whose connection broke is still there. */
  async watch(): Promise<void> {
    if (this.watching) return;
    this.watching = true;
    while (!this.over && !this.up) {
      if (await this.isGone()) {
        this.died(DIED);
        this.stream.detach();
        break;
      }
      await sleep(LOOK_MS, undefined, { ref: false });
    }
    this.watching = false;
  }

  private async isGone(): Promise<boolean> {
    try {
      const { status } = await this.vm.refresh();
      return status === "stopped" || status === "error";
    } catch (error) {
      // Anything else: the daemon is being started anew.
      return isLost(error);
    }
  }

  /** The guest may forget it. */
  async forget(): Promise<void> {
    // Gone with its VM, most of the time.
    await forgetStream(this.vm.transport, this.stream.id).catch(() => undefined);
  }
}

async function endOf({ exitCode, oomKilled }: StreamExit): Promise<RunEnd> {
  return await Promise.resolve({ exitCode, oomKilled, error: "" });
}
