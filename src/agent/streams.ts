/**
 * Guest streams that survive their connection. All of the resumption is here, on the client's
 * side: offsets, acknowledgements, input kept until it has arrived, attaching again.
 */
import { randomBytes } from "node:crypto";
import type { Duplex, Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { VmsanError, messageOf } from "../model/errors.ts";
import {
  FrameDecoder,
  FrameType,
  decodeGap,
  decodeJson,
  decodeOffset,
  decodeOutput,
  encodeFrame,
  encodeJson,
  encodeOutput,
  encodeResize,
  encodeSignal,
  protocolError,
} from "./frames.ts";
import type { OutputNumber } from "./frames.ts";
import { Output } from "./output.ts";
import type { OutputCallback } from "./output.ts";
import { isStreamId, offsetField, parseExit, signalNumber, toOffset } from "./spec.ts";
import type { StreamExit, StreamSpec } from "./spec.ts";
import { StdinBuffer } from "./stdin-buffer.ts";
import { clampSize, detachedError, lostError, outputOf } from "./stream-options.ts";
import type { AttachOptions, Opening, StreamOptions } from "./stream-options.ts";
import { agentError, isAsleep, isFatal } from "./transport.ts";
import type { StreamOpener } from "./transport.ts";

export type { AttachOptions, Gap, StreamOptions } from "./stream-options.ts";

const BACKOFF_MIN_MS = 5;
const BACKOFF_MAX_MS = 1000;
/** After that long without a connection the agent may drop output: the stream is given up. */
const RECONNECT_MS = 60_000;
/** Received and not yet taken by the user; more stops the connection (observers, big rings). */
const MAX_BACKLOG = 8 << 20;
/** How long an aborted stream's command has to end before the stream is left alone. */
const ABORT_MS = 5000;
/** How long what is left to be said may take at a connection's end. */
const LAST_WORDS_MS = 2000;

/** Offset of an ACK which says that nobody reads that output any more. */
const NO_READER = 2n ** 64n - 1n;

/** End a connection: what is written goes out, but an agent or proxy that does not end its side must not keep it. */
function part(duplex: Duplex): void {
  duplex.end();
  const timer = setTimeout(() => duplex.destroy(), LAST_WORDS_MS);
  timer.unref();
  duplex.once("close", () => clearTimeout(timer));
}

/** Something with input, outputs and an end, in a guest: a command, an archive, a connection. */
export class GuestStream {
  /** 16 hex digits; other clients reach the stream by it. */
  readonly id: string;
  /** How it ended. Rejects when it could not start, was lost, detached or aborted. */
  readonly exit: Promise<StreamExit>;
  /** Resolves once the agent has the stream. Rejects like `exit`. */
  readonly started: Promise<void>;
  private readonly opener: StreamOpener;
  private readonly options: StreamOptions;
  private readonly opening: Opening;
  private readonly input: StdinBuffer;
  private readonly outputs: Record<OutputNumber, Output>;
  private readonly ending = new AbortController();
  /** Tells the agent whose input it is, where several clients share a terminal. */
  private readonly client = randomBytes(8).toString("hex");
  private duplex: Duplex | undefined;
  private attached = false;
  private everAttached = false;
  private everOpened = false;
  private over = false;
  private held = false;
  private aborted: unknown;
  private guestPid: number | undefined;
  private size: { rows: number; cols: number } | undefined;
  private signals: Buffer[] = [];
  private resolveExit: (exit: StreamExit) => void = () => undefined;
  private rejectExit: (error: unknown) => void = () => undefined;
  private resolveStarted: () => void = () => undefined;
  private rejectStarted: (error: unknown) => void = () => undefined;

  /** Use {@link startStream} or {@link attachStream}. */
  constructor(opener: StreamOpener, id: string, opening: Opening, options: AttachOptions) {
    this.opener = opener;
    this.options = options;
    this.opening = opening;
    this.input = new StdinBuffer(opening.kind === "attach" || opening.spec.tty !== undefined);
    this.id = id;
    this.exit = new Promise((resolve, reject) => {
      this.resolveExit = resolve;
      this.rejectExit = reject;
    });
    this.started = new Promise((resolve, reject) => {
      this.resolveStarted = resolve;
      this.rejectStarted = reject;
    });
    // Whoever wants to know awaits them; nobody has to await both.
    this.exit.catch(() => undefined);
    this.started.catch(() => undefined);
    const output = (number: OutputNumber, from: number, callback?: OutputCallback): Output =>
      new Output(from, callback, {
        onAck: (offset) => this.sendAck(number, offset),
        onTaken: () => this.letThrough(),
        onUnread: () => this.sendUnread(number),
        onError: (error) => this.finish(error),
      });
    this.outputs = {
      1: output(1, options.from?.stdout ?? 0, options.onStdout),
      2: output(2, options.from?.stderr ?? 0, options.onStderr),
    };
    options.signal?.addEventListener("abort", this.onAbort, { once: true });
    if (options.signal?.aborted === true) this.onAbort();
    void this.run();
  }

  /** Standard input. Ends the command's input when ended; destroyed when the command is over. */
  get stdin(): Writable {
    return this.input.writable;
  }

  /** Standard output, unless `onStdout` takes it. */
  get stdout(): Readable {
    return this.outputs[1].stream();
  }

  /** Standard error, unless `onStderr` takes it. */
  get stderr(): Readable {
    return this.outputs[2].stream();
  }

  /** Process ID in the guest, once started. */
  get pid(): number | undefined {
    return this.guestPid;
  }

  /** Tell the command's terminal its size. */
  resize(rows: number, cols: number): void {
    this.size = { rows: clampSize(rows), cols: clampSize(cols) };
    if (this.attached) this.write(encodeResize(this.size.rows, this.size.cols));
  }

  /**
   * Send a signal: to the command (its terminal's foreground group), or to all its processes.
   * While the connection is down it waits for the next one.
   */
  signal(signal: string | number, tree = false): void {
    const number = signalNumber(signal);
    if (number === undefined) {
      throw new VmsanError({
        code: "ERR_VALIDATION_FLAGS",
        message: `Invalid signal: ${JSON.stringify(signal)}`,
        why: "It takes a name (TERM, SIGTERM) or a number from 1 to 64.",
        fix: "For example: TERM.",
      });
    }
    const frame = encodeSignal(number, tree);
    if (this.attached) this.write(frame);
    else this.signals.push(frame);
  }

  /**
   * Nobody reads this output any more: the rest of it is thrown away, and a command that goes on
   * writing gets SIGPIPE, as from any pipe whose reader has left. (Not on a terminal.)
   */
  closeOutput(name: "stdout" | "stderr"): void {
    this.outputs[name === "stdout" ? 1 : 2].close();
  }

  /** Leave the stream running in the guest. `exit` rejects with ERR_AGENT_DETACHED. */
  detach(): void {
    if (this.over) return;
    if (this.attached) this.write(encodeFrame(FrameType.DETACH, Buffer.alloc(0)));
    this.finish(detachedError(this.id), true);
  }

  /** Connect, and connect again, until the stream is over. */
  private async run(): Promise<void> {
    const patience = this.options.reconnectMs ?? RECONNECT_MS;
    let wait = BACKOFF_MIN_MS;
    let lostAt = Date.now();
    while (!this.over) {
      try {
        const path =
          this.opening.kind === "start" && !this.everAttached
            ? "/v1/streams"
            : `/v1/streams/${this.id}`;
        const leftMs = Math.max(0, patience - (Date.now() - lostAt));
        const signal = AbortSignal.any([this.ending.signal, AbortSignal.timeout(leftMs)]);
        const duplex = await this.opener.open(path, signal, leftMs);
        if (this.over) {
          duplex.destroy();
          return;
        }
        const broke = await this.converse(duplex);
        if (this.over) return;
        if (broke.attached) {
          wait = BACKOFF_MIN_MS;
          lostAt = Date.now();
          this.options.onConnection?.(false);
        }
        throw broke.error;
      } catch (error) {
        if (this.over) return;
        if (isFatal(error)) return this.finish(error);
        // The guest's time stands still too.
        if (isAsleep(error)) lostAt = Date.now();
        if (Date.now() - lostAt >= patience) return this.finish(lostError(this.id, error));
        try {
          await sleep(wait, undefined, { signal: this.ending.signal });
        } catch {
          // AbortError: the stream is over.
          return;
        }
        wait = Math.min(wait * 2, BACKOFF_MAX_MS);
      }
    }
  }

  /** Use one connection until it ends. */
  private async converse(duplex: Duplex): Promise<{ attached: boolean; error: unknown }> {
    this.duplex = duplex;
    this.everOpened = true;
    let problem: unknown = new Error("the connection broke");
    const decoder = new FrameDecoder({
      frame: (type, payload) => this.takeFrame(type, payload),
      data: (type, offset, bytes) => this.takeData(type, offset, bytes),
    });
    const closed = new Promise<void>((resolve) => {
      duplex.on("data", (chunk: Buffer) => {
        if (this.over) return;
        try {
          decoder.push(chunk);
        } catch (error) {
          this.finish(error);
        }
      });
      duplex.on("error", (error) => {
        problem = error;
      });
      duplex.on("drain", () => this.input.drained());
      // An end without EXIT is a break like any other.
      duplex.on("end", () => {
        if (!this.over) duplex.destroy();
      });
      duplex.on("close", resolve);
    });
    this.sendOpening();
    await closed;
    const attached = this.attached;
    this.attached = false;
    this.held = false;
    this.duplex = undefined;
    this.input.disconnect();
    return { attached, error: problem };
  }

  /** START or ATTACH. */
  private sendOpening(): void {
    if (this.opening.kind === "start" && !this.everAttached) {
      this.write(
        encodeJson(FrameType.START, { ...this.opening.spec, id: this.id, client: this.client }),
      );
      // Input may follow at once: the agent drops what it already has.
      this.connectInput(this.input.acknowledged);
      return;
    }
    const attach = this.opening.kind === "attach" ? this.opening : undefined;
    this.write(
      encodeJson(FrameType.ATTACH, {
        client: this.client,
        stdout: String(this.outputs[1].consumedOffset),
        stderr: String(this.outputs[2].consumedOffset),
        ...(attach?.observe === true ? { observe: true } : {}),
        ...(attach?.tail === undefined || this.everAttached ? {} : { tail: attach.tail }),
      }),
    );
  }

  private connectInput(from: number): void {
    const duplex = this.duplex;
    if (duplex === undefined) return;
    this.input.connect(
      {
        write: (header, data) => {
          if (data === undefined) return duplex.write(header);
          duplex.cork();
          duplex.write(header);
          const more = duplex.write(data);
          duplex.uncork();
          return more;
        },
      },
      from,
    );
  }

  private takeData(type: number, offset: bigint, bytes: Buffer): void {
    const number = outputOf(type);
    // STDIN from an agent: a later version's meaning, not ours.
    if (number === undefined) return;
    this.outputs[number].accept(toOffset(offset), bytes);
    this.holdBack();
  }

  /** Received and not yet taken. */
  private get backlog(): number {
    return this.outputs[1].backlog + this.outputs[2].backlog;
  }

  /** Stop reading while the user takes too little; see MAX_BACKLOG. */
  private holdBack(): void {
    if (this.backlog < MAX_BACKLOG || this.duplex === undefined) return;
    this.held = true;
    this.duplex.pause();
  }

  /** Read again once half of it has been taken. */
  private letThrough(): void {
    if (!this.held || this.backlog > MAX_BACKLOG / 2) return;
    this.held = false;
    this.duplex?.resume();
  }

  private takeFrame(type: number, payload: Buffer): void {
    switch (type) {
      case FrameType.ATTACHED:
        this.takeAttached(decodeJson(type, payload));
        break;
      case FrameType.STDIN_ACK:
        this.input.acknowledge(toOffset(decodeOffset(payload)));
        break;
      case FrameType.GAP: {
        const { stream, to } = decodeGap(payload);
        if (stream === 1 || stream === 2) this.skip(stream, toOffset(to));
        break;
      }
      case FrameType.OUT_EOF: {
        const { stream } = decodeOutput(payload);
        if (stream === 1 || stream === 2) this.outputs[stream].end();
        break;
      }
      case FrameType.EXIT:
        this.takeExit(parseExit(decodeJson(type, payload)));
        break;
      case FrameType.FAIL:
        this.finish(agentError(decodeJson(type, payload), `Cannot run ${this.describe()}`));
        break;
      default:
        // Unknown types are a later version's; the protocol says to ignore them.
        break;
    }
  }

  private takeAttached(value: Record<string, unknown>): void {
    // Each would have what is kept of the input sent once more, whether it is taken or not.
    if (this.attached) throw protocolError("The agent answers twice.");
    const pid = value["pid"];
    if (typeof pid === "number" && Number.isInteger(pid)) this.guestPid = pid;
    const first = !this.everAttached;
    const again = this.opening.kind === "attach" || !first;
    this.attached = true;
    this.everAttached = true;
    for (const number of [1, 2] as const) {
      const start = offsetField(value, number === 1 ? "stdout" : "stderr");
      // With `tail` and for an observer the agent chooses where to begin.
      if (start > this.outputs[number].receivedOffset) this.skip(number, start, first);
    }
    // A new client goes on where the input stands; one that comes back, where it was itself.
    if (first && this.opening.kind === "attach") this.input.rebase(offsetField(value, "stdin"));
    if (again) this.connectInput(offsetField(value, "stdin"));
    else this.input.acknowledge(offsetField(value, "stdin"));
    if (this.size !== undefined) this.write(encodeResize(this.size.rows, this.size.cols));
    for (const frame of this.signals.splice(0)) this.write(frame);
    for (const number of [1, 2] as const) if (this.outputs[number].closed) this.sendUnread(number);
    if (first) {
      this.resolveStarted();
      this.options.onStarted?.(this.guestPid);
    }
    this.options.onConnection?.(true);
  }

  private skip(number: OutputNumber, to: number, silent = false): void {
    const output = this.outputs[number];
    const from = output.receivedOffset;
    if (output.skipTo(to) === 0 || silent || output.closed) return;
    this.options.onGap?.({ stream: number === 1 ? "stdout" : "stderr", from, to });
  }

  private takeExit(exit: StreamExit): void {
    const duplex = this.duplex;
    if (!this.observing) {
      for (const number of [1, 2] as const) {
        const offset = BigInt(this.outputs[number].receivedOffset);
        this.write(encodeOutput(FrameType.ACK, number, offset));
      }
      this.write(encodeOutput(FrameType.ACK, 0, 0n));
    }
    if (duplex !== undefined) part(duplex);
    this.over = true;
    this.release();
    this.resolveStarted();
    for (const number of [1, 2] as const) this.outputs[number].end();
    const delivered = ([1, 2] as const)
      .filter((number) => this.outputs[number].hasCallback)
      .map((number) => this.outputs[number].drained());
    void Promise.all(delivered).then(() => {
      if (this.aborted === undefined) this.resolveExit(exit);
      else this.rejectExit(this.aborted);
    });
  }

  /** End the stream on this side with an error. */
  private finish(error: unknown, gently = false): void {
    if (this.over) return;
    this.over = true;
    const failure = error instanceof Error ? error : new Error(messageOf(error));
    this.ending.abort(failure);
    if (this.duplex !== undefined) {
      if (gently) part(this.duplex);
      else this.duplex.destroy();
    }
    this.release();
    for (const number of [1, 2] as const) {
      this.outputs[number].end(gently ? undefined : failure);
    }
    this.rejectStarted(error);
    this.rejectExit(error);
  }

  /** What both kinds of end have in common. */
  private release(): void {
    this.options.signal?.removeEventListener("abort", this.onAbort);
    this.input.close();
  }

  private readonly onAbort = (): void => {
    this.aborted = this.options.signal?.reason ?? new Error("aborted");
    if (!this.everOpened || this.observing) return this.finish(this.aborted);
    this.signal(9, true);
    const timer = setTimeout(() => this.finish(this.aborted), ABORT_MS);
    timer.unref();
  };

  private get observing(): boolean {
    return this.opening.kind === "attach" && this.opening.observe;
  }

  private sendAck(number: OutputNumber, offset: number): void {
    if (!this.attached || this.over || this.observing) return;
    this.write(encodeOutput(FrameType.ACK, number, BigInt(offset)));
  }

  /** Tell the agent that an output has no reader any more. */
  private sendUnread(number: OutputNumber): void {
    if (!this.attached || this.over || this.observing) return;
    this.write(encodeOutput(FrameType.ACK, number, NO_READER));
  }

  private write(frame: Buffer): void {
    if (this.duplex?.writable === true) this.duplex.write(frame);
  }

  private describe(): string {
    if (this.opening.kind === "attach") return `stream ${this.id}`;
    const { kind, argv, path, address } = this.opening.spec;
    return kind === "exec" ? JSON.stringify(argv?.[0] ?? "") : `${kind} ${path ?? address ?? ""}`;
  }
}

/** Start something in the guest. Failures reject `exit` and `started`. */
export function startStream(
  opener: StreamOpener,
  spec: StreamSpec,
  options: StreamOptions = {},
): GuestStream {
  const id = randomBytes(8).toString("hex");
  return new GuestStream(opener, id, { kind: "start", spec }, options);
}

/**
 * Attach to something that runs in the guest, or has run and is kept.
 * @throws ERR_VALIDATION_FLAGS for an identifier that is none
 */
export function attachStream(
  opener: StreamOpener,
  id: string,
  options: AttachOptions = {},
): GuestStream {
  if (!isStreamId(id)) {
    throw new VmsanError({
      code: "ERR_VALIDATION_FLAGS",
      message: `Invalid command ID: ${JSON.stringify(id)}`,
      why: "A command in a guest is named by 16 hex digits.",
      fix: "See `vmsan ps ID` for the commands of a VM.",
    });
  }
  const { observe = false, tail } = options;
  return new GuestStream(opener, id, { kind: "attach", observe, tail }, options);
}
