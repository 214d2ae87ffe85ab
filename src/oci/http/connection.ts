/** One connection to a server: a request at a time, bodies straight into the taker's memory. */
import type { Socket } from "node:net";
import { ChunkedDecoder, HEAD_LIMIT, endOfHead, parseHead } from "./wire.ts";
import type { Framing, Head } from "./wire.ts";

/** Where a body goes. */
export interface BodySink {
  /** Memory for the next bytes, at least one; asked for also while `filled` is waited for. */
  space(): Uint8Array;
  /** So many bytes were put at the start of the last space. A promise asks to wait. */
  filled(size: number): void | Promise<void>;
}

/**
 * What is sent behind a request's head: calls `write` for each piece, in order, and waits for it.
 * Called anew for each try. The memory of a piece may be used again once `write` has resolved.
 */
export type BodyWriter = (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>;

/** What `net.connect` and `tls.connect` take to read into memory that we choose. */
export interface ReadInto {
  buffer: () => Uint8Array;
  callback: (size: number, buffer: Uint8Array) => boolean;
}

/** Ends the sending of a body whose request has been answered. */
class AnsweredEarly extends Error {}

/** A promise with its ends. */
interface Waiting<T> {
  resolve: (value: T) => void;
  reject: (error: Error) => void;
}

/** A socket that carries HTTP/1.1 exchanges, one after the other. */
export class Connection {
  /** Pass to `connect` where it is understood; else call {@link attach} with `data` events. */
  readonly onread: ReadInto;
  /** Bytes of answers received. */
  received = 0;
  /** Bytes of bodies that the kernel has taken. */
  sent = 0;
  /** Whether it has carried an exchange before the present one. */
  used = false;
  /** Whether the answer came before all of the request's body was sent. */
  cut = false;
  #socket: Socket | undefined;
  #failure: Error | undefined;
  readonly #scratch = Buffer.allocUnsafeSlow(HEAD_LIMIT);
  /** Memory of the sink that the next bytes go to; none while they go to the scratch. */
  #direct: Uint8Array | undefined;
  /** Bytes of a head that has not come whole, or what came with it of the body. */
  #early: Buffer = Buffer.alloc(0);
  #method = "GET";
  #head: Waiting<Head> | undefined;
  #framing: Framing = { kind: "length", size: 0 };
  #left = 0;
  #chunks: ChunkedDecoder | undefined;
  #sink: BodySink | undefined;
  #body: Waiting<void> | undefined;
  /** No answer is expected. */
  #idle = true;
  /** A piece of a body waits for the kernel. */
  #sending = false;

  constructor() {
    this.onread = {
      buffer: () => this.#nextSpace(),
      callback: (size) => this.#onBytes(size),
    };
  }

  /** Take over a connected or connecting socket. @param events whether it knows no onread */
  attach(socket: Socket, events: boolean): void {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on("error", (error) => this.#fail(error));
    socket.on("end", () => this.#onEnd());
    socket.on("close", () => this.#onEnd());
    if (!events) return;
    socket.on("data", (bytes: Buffer) => {
      this.received += bytes.length;
      if (!this.#take(bytes)) socket.pause();
    });
  }

  /** Whether it can take another request. */
  get usable(): boolean {
    return this.#failure === undefined && this.#socket?.destroyed === false;
  }

  /** End it. @param error what waits gets; without one, that it was closed */
  destroy(error?: Error): void {
    this.#fail(error ?? new Error("The connection was closed"));
    this.#socket?.destroy();
  }

  /**
   * Send a request and wait for the head of its answer, which may come before all of the body is
   * sent: then no more of it is, and the connection must not be used again ({@link cut}).
   */
  async exchange(request: string, method: string, body?: BodyWriter): Promise<Head> {
    this.cut = false;
    const head = this.#exchangeHead(request, method);
    if (body === undefined) return head;
    let answered = false;
    const answer = head.finally(() => {
      answered = true;
    });
    const sending = body(async (bytes) => {
      if (answered) throw new AnsweredEarly();
      await this.#write(bytes);
    }).catch((error: unknown) => {
      if (!answered) this.#fail(error instanceof Error ? error : new Error(String(error)));
      this.cut = true;
    });
    try {
      return await answer;
    } finally {
      // A writer that waits for room in a connection that nobody reads would wait for ever.
      if (this.#sending) {
        this.cut = true;
        this.#socket?.destroy();
      }
      await sending;
    }
  }

  /** Hand bytes to the socket and wait until the kernel has them. */
  async #write(bytes: Uint8Array): Promise<void> {
    const socket = this.#socket;
    if (this.#failure !== undefined) throw this.#failure;
    if (socket === undefined) throw new Error("The connection is not open");
    this.#sending = true;
    try {
      await new Promise<void>((resolve, reject) => {
        const ended = (): void => reject(this.#failure ?? new Error("The connection was closed"));
        socket.once("close", ended);
        socket.write(bytes, (error) => {
          socket.off("close", ended);
          if (error === undefined || error === null) resolve();
          else reject(error);
        });
      });
    } finally {
      this.#sending = false;
    }
    this.sent += bytes.length;
  }

  async #exchangeHead(request: string, method: string): Promise<Head> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) {
        reject(this.#failure);
        return;
      }
      this.#idle = false;
      this.#method = method;
      this.#early = Buffer.alloc(0);
      this.#head = { resolve, reject };
      this.#socket?.write(request);
      this.#socket?.resume();
    });
  }

  /** Receive the body of the answer whose head has come. */
  async receive(framing: Framing, sink: BodySink): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined && this.#early.length === 0) {
        reject(this.#failure);
        return;
      }
      this.#framing = framing;
      this.#left = framing.kind === "length" ? framing.size : 0;
      this.#chunks = framing.kind === "chunked" ? new ChunkedDecoder() : undefined;
      this.#sink = sink;
      this.#body = { resolve, reject };
      const early = this.#early;
      this.#early = Buffer.alloc(0);
      if (framing.kind === "length" && framing.size === 0) this.#finish();
      else if (early.length === 0 || this.#take(early)) this.#socket?.resume();
    });
  }

  /** Where the next bytes from the kernel shall go. */
  #nextSpace(): Uint8Array {
    const sink = this.#sink;
    this.#direct = undefined;
    if (sink === undefined || this.#framing.kind !== "length" || this.#left === 0) {
      return this.#scratch;
    }
    const space = sink.space();
    this.#direct = space.subarray(0, Math.min(space.length, this.#left));
    return this.#direct;
  }

  /** The kernel has put bytes where the last space was. @returns whether to go on reading */
  #onBytes(size: number): boolean {
    this.received += size;
    const sink = this.#sink;
    if (this.#direct === undefined || sink === undefined) {
      return this.#take(Buffer.from(this.#scratch.subarray(0, size)));
    }
    this.#left -= size;
    return this.#after(() => sink.filled(size));
  }

  /** Let the sink have bytes, and go on when it is ready. @returns whether it is */
  #after(fill: () => void | Promise<void>): boolean {
    try {
      const wait = fill();
      if (wait === undefined) {
        if (this.#left === 0) this.#finish();
        return true;
      }
      wait.then(
        () => {
          if (this.#left === 0) this.#finish();
          else this.#socket?.resume();
        },
        (error: Error) => this.destroy(error),
      );
      return false;
    } catch (error) {
      this.destroy(error instanceof Error ? error : new Error(String(error)));
      return false;
    }
  }

  /** Bytes in memory of ours: a head, or a body that must be copied. @returns whether to go on */
  #take(bytes: Buffer): boolean {
    if (this.#sink !== undefined) {
      this.#copy(bytes).catch((error: Error) => this.destroy(error));
      return false;
    }
    if (this.#idle) {
      this.destroy(new Error("There are bytes that nobody asked for"));
      return false;
    }
    this.#early = Buffer.concat([this.#early, bytes]);
    if (this.#head !== undefined) this.#tryHead();
    return this.#head !== undefined;
  }

  /** Look for the end of the head. */
  #tryHead(): void {
    for (;;) {
      const found = endOfHead(this.#early);
      if (found === undefined) {
        if (this.#early.length >= HEAD_LIMIT)
          this.destroy(new Error("The answer's head is too long"));
        return;
      }
      let head: Head;
      try {
        head = parseHead(this.#early.toString("latin1", 0, found.end), this.#method);
      } catch (error) {
        this.destroy(error as Error);
        return;
      }
      this.#early = this.#early.subarray(found.body);
      if (head.status >= 200 || head.status === 101) {
        const waiting = this.#head;
        this.#head = undefined;
        waiting?.resolve(head);
        return;
      }
    }
  }

  /** Copy bytes of a body to the sink, taking its coding off. */
  async #copy(bytes: Buffer): Promise<void> {
    if (this.#chunks !== undefined) {
      for (const part of this.#chunks.push(bytes)) await this.#copyPlain(part);
      if (this.#chunks.done) this.#finish(this.#chunks.surplus);
      else this.#socket?.resume();
      return;
    }
    const length = this.#framing.kind === "length";
    const own = length ? bytes.subarray(0, this.#left) : bytes;
    if (length) this.#left -= own.length;
    await this.#copyPlain(own);
    if (length && this.#left === 0) this.#finish(own.length < bytes.length);
    else this.#socket?.resume();
  }

  /** Copy content to the sink. */
  async #copyPlain(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      const space = this.#sink?.space();
      if (space === undefined) return;
      const part = bytes.subarray(at, at + space.length);
      space.set(part);
      at += part.length;
      await this.#sink?.filled(part.length);
    }
  }

  /** The body is whole. @param surplus whether more came, which ends the connection's use */
  #finish(surplus = false): void {
    const waiting = this.#body;
    this.#body = undefined;
    this.#sink = undefined;
    this.#direct = undefined;
    this.#idle = true;
    this.used = true;
    if (surplus) this.destroy(new Error("There are bytes that nobody asked for"));
    waiting?.resolve();
  }

  /** The server has ended the connection. */
  #onEnd(): void {
    if (this.#body !== undefined && this.#framing.kind === "close") this.#finish();
    this.#fail(new Error("The connection closed in the middle"));
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    const failure = this.#failure;
    const [head, body] = [this.#head, this.#body];
    [this.#head, this.#body, this.#sink] = [undefined, undefined, undefined];
    head?.reject(failure);
    body?.reject(failure);
  }
}
