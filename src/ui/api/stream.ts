/**
 * A stream of a guest over a WebSocket, resumed after every cut: outputs by their offsets, input kept until
 * the guest has it (protocol/README.md, section 4).
 */
import { FrameType } from "../../model/frames.ts";
import type { ErrorInfo } from "../../model/errors.ts";
import {
  FrameReader,
  encodeAck,
  encodeFrame,
  encodeInput,
  encodeJson,
  encodeResize,
  encodeSignal,
} from "./frames.ts";
import type { Payload } from "./frames.ts";

/** Bytes of input that may be under way, as the protocol bounds them. */
const INPUT_WINDOW = 1 << 20;
/** Bytes of output taken before the guest is told. */
const ACK_BYTES = 64 << 10;
/** Bytes of input in one frame. */
const INPUT_PIECE = 64 << 10;
const BACKOFF_MAX_MS = 5_000;

/** How a stream's command ended. */
export interface StreamEnd {
  exitCode: number;
  signal?: string;
  timedOut?: boolean;
  oomKilled?: boolean;
}

/** What is told of a stream. */
export interface StreamEvents {
  /** Bytes of an output; the next ones are acknowledged when the promise has resolved. */
  onOutput(output: 1 | 2, bytes: Uint8Array, offset: number): Promise<void> | void;
  /** The guest has dropped bytes. */
  onGap?(output: number, from: number, to: number): void;
  onExit(end: StreamEnd): void;
  /** It could not start, or nobody has it any more. */
  onFail(error: ErrorInfo): void;
  /** Whether the connection stands. */
  onConnected?(connected: boolean): void;
}

/** What to open. */
export interface StreamWish {
  /** 16 hex digits. */
  id: string;
  /** What to start; absent: the stream is there. */
  spec?: object;
  /** Look only: nothing is acknowledged, nothing typed. */
  observe?: boolean;
  /** With `observe`: begin that many bytes before the end. */
  tail?: number;
}

/** 16 hex digits that nobody else has. */
export function newStreamId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
}

/** The stream; it lives until its command ends, or {@link close}. */
export class GuestSocket {
  private readonly open: (path: string) => WebSocket;
  private readonly wish: StreamWish;
  private readonly events: StreamEvents;
  private readonly client = newStreamId();
  private socket: WebSocket | undefined;
  private started = false;
  private over = false;
  private attempts = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  /** Next byte expected of each output, and how far it is acknowledged. */
  private readonly next = { 1: 0, 2: 0 };
  private readonly acked = { 1: 0, 2: 0 };
  /** Input that the guest has not acknowledged; `sent` counts bytes since the stream's start. */
  private kept: Uint8Array[] = [];
  private keptFrom = 0;
  private sent = 0;
  private attached = false;
  private size: { rows: number; cols: number } | undefined;

  /** @param open opens a WebSocket to a path below the VM's */
  constructor(open: (path: string) => WebSocket, wish: StreamWish, events: StreamEvents) {
    this.open = open;
    this.wish = wish;
    this.events = events;
    this.connect();
  }

  /** Type. */
  write(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += INPUT_PIECE) {
      this.kept.push(bytes.slice(at, at + INPUT_PIECE));
    }
    this.sendInput();
  }

  /** Tell the terminal its size, also at every later connection. */
  resize(rows: number, cols: number): void {
    this.size = { rows, cols };
    if (this.attached) this.socket?.send(encodeResize(rows, cols));
  }

  /** Signal the command. @param tree and all it has started */
  signal(signal: number, tree: boolean): void {
    if (this.attached) this.socket?.send(encodeSignal(signal, tree));
  }

  /** Leave; the command goes on. */
  close(): void {
    this.over = true;
    clearTimeout(this.timer);
    if (this.attached && this.wish.observe !== true) {
      this.socket?.send(encodeFrame(FrameType.DETACH, new Uint8Array()));
    }
    this.socket?.close();
  }

  private connect(): void {
    const { id, spec, observe, tail } = this.wish;
    const fresh = spec !== undefined && !this.started;
    const socket = this.open(fresh ? "/v1/streams" : `/v1/streams/${id}`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    const reader = new FrameReader();
    // Frames are taken one after the other, also while somebody is slow to take their bytes.
    let turn: Promise<void> = Promise.resolve();
    socket.addEventListener("open", () => {
      const { client } = this;
      const from = { stdout: String(this.next[1]), stderr: String(this.next[2]) };
      const first = this.next[1] === 0 && tail !== undefined ? { tail } : {};
      socket.send(
        fresh
          ? encodeJson(FrameType.START, { ...spec, id, client })
          : encodeJson(FrameType.ATTACH, {
              ...from,
              client,
              ...(observe ? { observe, ...first } : {}),
            }),
      );
    });
    socket.addEventListener("message", (event) => {
      const data = event.data as ArrayBuffer;
      turn = turn
        .then(async () => {
          for (const { type, payload } of reader.read(new Uint8Array(data))) {
            if (this.socket !== socket) return;
            await this.take(type, payload);
          }
        })
        // What makes no sense is a broken connection.
        .catch(() => socket.close());
    });
    socket.addEventListener("close", () => void turn.then(() => this.lost(socket)));
  }

  private lost(socket: WebSocket): void {
    if (this.socket !== socket) return;
    this.attached = false;
    if (this.over) return;
    this.events.onConnected?.(false);
    const pause = Math.min(BACKOFF_MAX_MS, 100 * 2 ** this.attempts);
    this.attempts += 1;
    this.timer = setTimeout(() => this.connect(), pause);
  }

  private async take(type: number, payload: Payload): Promise<void> {
    switch (type) {
      case FrameType.ATTACHED: {
        const said = payload.json();
        this.started = true;
        this.attached = true;
        this.attempts = 0;
        this.next[1] = Number(said["stdout"] ?? 0);
        this.next[2] = Number(said["stderr"] ?? 0);
        this.forgetInput(Number(said["stdin"] ?? 0));
        this.sent = this.keptFrom;
        if (this.size !== undefined) this.resize(this.size.rows, this.size.cols);
        this.events.onConnected?.(true);
        this.sendInput();
        break;
      }
      case FrameType.STDOUT:
      case FrameType.STDERR:
        await this.takeOutput(type === FrameType.STDOUT ? 1 : 2, payload);
        break;
      case FrameType.STDIN_ACK:
        this.forgetInput(payload.offset(0));
        this.sendInput();
        break;
      case FrameType.GAP: {
        const output = payload.bytes[0] === 2 ? 2 : 1;
        this.next[output] = payload.offset(9);
        this.events.onGap?.(output, payload.offset(1), payload.offset(9));
        break;
      }
      case FrameType.EXIT:
        this.end();
        this.events.onExit(payload.json() as unknown as StreamEnd);
        break;
      case FrameType.FAIL:
        this.end();
        this.events.onFail(payload.json() as unknown as ErrorInfo);
        break;
      default:
        // A later version's.
        break;
    }
  }

  private end(): void {
    this.over = true;
    if (this.wish.observe !== true) this.socket?.send(encodeAck(0, 0));
    this.socket?.close();
  }

  private async takeOutput(output: 1 | 2, payload: Payload): Promise<void> {
    const offset = payload.offset(0);
    const bytes = payload.bytes.subarray(8);
    // What a new connection repeats.
    const known = Math.max(0, this.next[output] - offset);
    if (known >= bytes.length) return;
    this.next[output] = offset + bytes.length;
    await this.events.onOutput(output, bytes.subarray(known), offset + known);
    if (this.wish.observe === true || this.next[output] - this.acked[output] < ACK_BYTES) return;
    this.acked[output] = this.next[output];
    if (this.attached) this.socket?.send(encodeAck(output, this.next[output]));
  }

  /** The guest has everything before an offset. */
  private forgetInput(offset: number): void {
    while (this.keptFrom < offset) {
      const first = this.kept[0];
      if (first === undefined) {
        // Typed by this client before: nothing is kept of it any more.
        this.keptFrom = offset;
        break;
      }
      const done = Math.min(first.length, offset - this.keptFrom);
      this.keptFrom += done;
      if (done === first.length) this.kept.shift();
      else this.kept[0] = first.subarray(done);
    }
    this.sent = Math.max(this.sent, this.keptFrom);
  }

  private sendInput(): void {
    if (!this.attached || this.socket === undefined) return;
    let at = this.keptFrom;
    for (const piece of this.kept) {
      const end = at + piece.length;
      if (end > this.sent) {
        if (end - this.keptFrom > INPUT_WINDOW) return;
        this.socket.send(encodeInput(this.sent, piece.subarray(this.sent - at)));
        this.sent = end;
      }
      at = end;
    }
  }
}
