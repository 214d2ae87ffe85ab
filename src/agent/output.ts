/** One output of a guest stream: repeats dropped, consumption counted, back-pressure kept. */
import { Readable } from "node:stream";
import { protocolError } from "./frames.ts";

/** Acknowledged at least this often, in bytes; the protocol asks for 256 KiB. */
const ACK_EVERY = 128 << 10;

/**
 * Receives output as it comes. A promise holds back what follows (and, once the guest's
 * ring is full, the command) until it settles.
 */
export type OutputCallback = (bytes: Buffer) => void | Promise<void>;

/** What an {@link Output} tells its stream. */
interface OutputEvents {
  /** Enough has been consumed for an ACK. */
  onAck(offset: number): void;
  /** The user has taken some bytes. */
  onTaken(): void;
  /** Nobody will take what follows. */
  onUnread(): void;
  /** The user's callback threw. */
  onError(error: unknown): void;
}

/** Takes pieces with offsets, gives each byte once, in order. */
export class Output {
  /** The user's end, made when it is first asked for. */
  private readable: Readable | undefined;
  private callback: OutputCallback | undefined;
  private queue: Buffer[] = [];
  private queued = 0;
  private busy = false;
  private ended = false;
  private unread = false;
  private failure: Error | undefined;
  /** Offset of the next byte that is new. */
  private received: number;
  private consumed: number;
  private acknowledged: number;
  private readonly events: OutputEvents;
  /** Bytes lost behind what is queued. */
  private lostAhead = 0;
  private idle: (() => void)[] = [];

  /**
   * @param start offset of the first byte wanted
   * @param callback takes the bytes; undefined: {@link Output.stream} does
   */
  constructor(start: number, callback: OutputCallback | undefined, events: OutputEvents) {
    this.received = start;
    this.consumed = start;
    this.acknowledged = start;
    this.callback = callback;
    this.events = events;
  }

  /** Offset up to which the user has taken the bytes. */
  get consumedOffset(): number {
    return this.consumed;
  }

  /** Offset of the next byte that has not come yet. */
  get receivedOffset(): number {
    return this.received;
  }

  /** Bytes received and not yet taken by the user. */
  get backlog(): number {
    return this.queued;
  }

  /** Whether somebody awaits the delivery of every byte before the exit. */
  get hasCallback(): boolean {
    return this.callback !== undefined && this.readable === undefined;
  }

  /** Whether what follows is thrown away, see {@link Output.close}. */
  get closed(): boolean {
    return this.unread;
  }

  /** Nobody reads it any more: what is queued and what follows is thrown away. */
  close(): void {
    if (this.unread) return;
    this.unread = true;
    this.callback = () => undefined;
    if (!this.busy) this.pump();
    if (!this.ended) this.events.onUnread();
  }

  /** The output as a stream. */
  stream(): Readable {
    if (this.readable !== undefined) return this.readable;
    let wake: (() => void) | undefined;
    const release = (): void => {
      const waiting = wake;
      wake = undefined;
      waiting?.();
    };
    const readable = new Readable({
      highWaterMark: 64 << 10,
      read: release,
      destroy: (error, done) => {
        release();
        this.close();
        done(error);
      },
    });
    // Reported by the stream's `exit` too; a reader that listens gets it as well.
    readable.on("error", () => undefined);
    this.readable = readable;
    this.callback = (bytes) => {
      if (readable.push(bytes)) return undefined;
      return new Promise<void>((resolve) => {
        wake = resolve;
      });
    };
    this.pump();
    return readable;
  }

  /** A piece of a data frame. */
  accept(offset: number, bytes: Buffer): void {
    if (offset > this.received) {
      throw protocolError(`Output jumps from ${this.received} to ${offset}.`);
    }
    const fresh = offset === this.received ? bytes : bytes.subarray(this.received - offset);
    if (fresh.length === 0) return;
    this.received += fresh.length;
    this.queue.push(fresh);
    this.queued += fresh.length;
    if (!this.busy) this.pump();
  }

  /** The guest's ring has dropped what is before `offset`; gives how many bytes are lost. */
  skipTo(offset: number): number {
    const lost = offset - this.received;
    if (lost <= 0) return 0;
    this.received = offset;
    // Counted as consumed only once what is queued before it has been.
    if (this.queued === 0) this.consumed = offset;
    else this.lostAhead += lost;
    return lost;
  }

  /** Nothing will follow; `failure` when it ends before its time. */
  end(failure?: Error): void {
    if (this.ended) return;
    this.ended = true;
    this.failure = failure;
    if (!this.busy) this.pump();
  }

  /** Resolves when everything received so far has been taken. */
  async drained(): Promise<void> {
    if (this.queued === 0 && !this.busy) return;
    await new Promise<void>((resolve) => this.idle.push(resolve));
  }

  /** Hand on what is queued, as long as it is taken at once. */
  private pump(): void {
    while (this.callback !== undefined) {
      const bytes = this.queue.shift();
      if (bytes === undefined) break;
      let taken: void | Promise<void> = undefined;
      try {
        taken = this.callback(bytes);
      } catch (error) {
        this.events.onError(error);
      }
      if (taken === undefined) this.took(bytes.length);
      else {
        this.busy = true;
        const after = (): void => {
          this.busy = false;
          this.took(bytes.length);
          this.pump();
        };
        // A callback that throws has had its bytes: they are not given twice.
        taken.then(after, (error: unknown) => {
          this.events.onError(error);
          after();
        });
        return;
      }
    }
    if (this.queued > 0) return;
    if (this.ended && this.readable !== undefined && !this.readable.destroyed) {
      if (this.failure === undefined) this.readable.push(null);
      else this.readable.destroy(this.failure);
    }
    for (const resolve of this.idle.splice(0)) resolve();
  }

  private took(bytes: number): void {
    this.queued -= bytes;
    this.consumed += bytes;
    if (this.queued === 0 && this.lostAhead > 0) {
      this.consumed += this.lostAhead;
      this.lostAhead = 0;
    }
    this.events.onTaken();
    if (this.consumed - this.acknowledged >= ACK_EVERY) {
      this.acknowledged = this.consumed;
      this.events.onAck(this.consumed);
    }
  }
}
