/** A client of SPDY/3.1 for tests: opens streams, as kubectl does. */
import { request } from "node:https";
import type { RequestOptions } from "node:https";
import type { Duplex } from "node:stream";
import {
  ControlType,
  dataHeader,
  encodeControl,
  encodeNumbers,
  readFrames,
} from "../spdy/frames.ts";
import { HeaderBlocks } from "../spdy/headers.ts";

/** What came on one stream. */
export interface ClientStream {
  id: number;
  readonly received: Buffer;
  /** Resolves when the server has ended its half, or the stream. */
  ended: Promise<"ended" | "reset">;
}

/** A connection with its streams. */
export class SpdyClient {
  private readonly duplex: Duplex;
  private readonly blocks = new HeaderBlocks();
  private readonly open = new Map<
    number,
    { parts: Buffer[]; end: (how: "ended" | "reset") => void }
  >();
  private next = 1;
  private opening = Promise.resolve();
  readonly replies = new Set<number>();
  readonly closed: Promise<void>;

  constructor(duplex: Duplex) {
    this.duplex = duplex;
    this.closed = new Promise((resolve) => duplex.once("close", () => resolve()));
    duplex.on("error", () => undefined);
    void this.read().catch(() => undefined);
  }

  private async read(): Promise<void> {
    for await (const frame of readFrames(this.duplex)) {
      if (frame.kind === "data") {
        const stream = this.open.get(frame.stream);
        stream?.parts.push(Buffer.from(frame.bytes));
        if (frame.last) stream?.end("ended");
      } else if (frame.type === ControlType.synReply)
        this.replies.add(frame.payload.readUInt32BE(0));
      else if (frame.type === ControlType.rstStream) {
        this.open.get(frame.payload.readUInt32BE(0))?.end("reset");
      } else if (frame.type === ControlType.ping) this.replies.add(frame.payload.readUInt32BE(0));
    }
  }

  /** Open a stream. */
  async stream(headers: Record<string, string>): Promise<ClientStream> {
    const id = this.next;
    this.next += 2;
    const parts: Buffer[] = [];
    const ended = new Promise<"ended" | "reset">((end) => this.open.set(id, { parts, end }));
    const head = Buffer.alloc(10);
    head.writeUInt32BE(id);
    // One after the other: each block goes on where the one before has ended.
    this.opening = this.opening.then(async () => {
      const block = await this.blocks.encode(headers);
      this.duplex.write(encodeControl(ControlType.synStream, Buffer.concat([head, block])));
    });
    await this.opening;
    return {
      id,
      ended,
      get received() {
        return Buffer.concat(parts);
      },
    };
  }

  /** Send data; resolves when it has been taken. */
  async send(stream: ClientStream, bytes: Buffer, last = false): Promise<void> {
    this.duplex.write(dataHeader(stream.id, bytes.length, last));
    await new Promise<void>((resolve) => this.duplex.write(bytes, () => resolve()));
  }

  ping(id: number): void {
    this.duplex.write(encodeNumbers(ControlType.ping, id));
  }

  raw(bytes: Buffer): void {
    this.duplex.write(bytes);
  }

  destroy(): void {
    this.duplex.destroy();
  }
}

/** Ask a server to switch to SPDY/3.1. @returns the connection, or what it answered instead */
export async function askSpdy(
  options: RequestOptions,
  protocols: string,
): Promise<{ duplex: Duplex; protocol: string } | { status: number; text: string }> {
  return await new Promise((resolve, reject) => {
    const call = request({
      ...options,
      method: "POST",
      agent: false,
      headers: {
        ...(options.headers as Record<string, string> | undefined),
        connection: "Upgrade",
        upgrade: "SPDY/3.1",
        "x-stream-protocol-version": protocols,
        "content-length": "0",
      },
    });
    call.on("error", reject);
    call.on("upgrade", (reply, socket, head) => {
      if (head.length > 0) socket.unshift(head);
      resolve({ duplex: socket, protocol: String(reply.headers["x-stream-protocol-version"]) });
    });
    call.on("response", (reply) => {
      const parts: Buffer[] = [];
      reply.on("data", (part: Buffer) => parts.push(part));
      reply.on("end", () =>
        resolve({ status: reply.statusCode ?? 0, text: Buffer.concat(parts).toString() }),
      );
    });
    call.end();
  });
}
