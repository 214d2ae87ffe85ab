/**
 * An agent in this process, for tests of the client's side alone: RESET, HTTP/2 and streams
 * as protocol/README.md has them, with a few built-in "commands" instead of processes.
 * The real agent is guest/; what needs processes is tested against that.
 */
import { createServer as createHttp2Server } from "node:http2";
import type { Http2Server, IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { createServer } from "node:net";
import type { Server, Socket } from "node:net";
import {
  FrameDecoder,
  FrameType,
  decodeJson,
  decodeOffset,
  decodeOutput,
  decodeSignal,
  encodeData,
  encodeJson,
  encodeOffset,
} from "../frames.ts";
import { offsetField } from "../spec.ts";

const MAGIC = "VMSAN-CHANNEL-1\n";

/** What a built-in command sees. */
export interface DoubleStream {
  id: string;
  argv: string[];
  /** Everything that has come on the input. */
  stdin: Buffer;
  stdinEnded: boolean;
  signals: number[];
  /** Highest acknowledged offset of standard output. */
  acked: number;
  acknowledgedExit: boolean;
  /** Append to an output. */
  emit(stream: 1 | 2, bytes: Buffer): void;
  exit(exitCode: number): void;
}

/** Called when the stream starts and whenever it has new input or a signal. */
export type DoubleCommand = (stream: DoubleStream, why: "start" | "input" | "signal") => void;

interface Kept extends DoubleStream {
  outputs: Record<1 | 2, Buffer>;
  exitCode?: number;
  connection?: ServerHttp2Stream;
}

/** The double: listens on a unix socket like `agent serve --unix`. */
export class AgentDouble {
  readonly streams = new Map<string, Kept>();
  /** START frames seen, repeats included. */
  starts = 0;
  sessions = 0;
  /** So many STARTs are obeyed and their connections cut before any reply. */
  loseReplies = 0;
  protocol = 1;
  /** What is replied to calls, by their paths; else nothing of note. */
  readonly replies = new Map<string, string>();
  readonly requests: { method: string; path: string; body: string }[] = [];
  /** Bytes sent in front of the echo: what a virtio-serial port may still hold. */
  stale = Buffer.alloc(0);
  private readonly commands: Record<string, DoubleCommand>;
  private readonly listener: Server;
  private readonly http2: Http2Server;
  private readonly sockets = new Set<Socket>();

  constructor(commands: Record<string, DoubleCommand>) {
    this.commands = commands;
    this.http2 = createHttp2Server({
      settings: { initialWindowSize: 4 << 20, maxFrameSize: 256 << 10 },
    });
    this.http2.on("stream", (stream, headers) => this.serve(stream, headers));
    this.http2.on("sessionError", () => undefined);
    this.listener = createServer((socket) => this.accept(socket));
  }

  /** Listen on a unix socket. */
  async listen(path: string): Promise<void> {
    await new Promise<void>((resolve) => this.listener.listen(path, resolve));
  }

  /** Cut every connection. */
  cut(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  /** Stop listening and cut. */
  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.listener.close(resolve));
  }

  /** RESET, then HTTP/2 on the rest. */
  private accept(socket: Socket): void {
    this.sockets.add(socket);
    socket.on("close", () => this.sockets.delete(socket));
    socket.on("error", () => undefined);
    let seen = Buffer.alloc(0);
    const onData = (chunk: Buffer): void => {
      seen = Buffer.concat([seen, chunk]);
      const at = seen.indexOf(MAGIC);
      if (at < 0 || seen.length < at + 48) return;
      socket.removeListener("data", onData);
      socket.pause();
      socket.write(Buffer.concat([this.stale, seen.subarray(at + 16, at + 48)]));
      if (seen.length > at + 48) socket.unshift(seen.subarray(at + 48));
      this.sessions += 1;
      this.http2.emit("connection", socket);
    };
    socket.on("data", onData);
  }

  private serve(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
    stream.on("error", () => undefined);
    const path = headers[":path"] ?? "";
    const method = headers[":method"] ?? "";
    if (method === "POST" && path.startsWith("/v1/streams") && !path.endsWith("/signal")) {
      stream.respond({ ":status": 200 });
      this.frames(stream, path.slice("/v1/streams/".length));
      return;
    }
    const chunks: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("end", () => {
      const body = Buffer.concat(chunks).toString();
      this.requests.push({ method, path, body });
      const reply = path === "/v1/hello" ? { protocol: this.protocol, build: "double" } : {};
      stream.respond({ ":status": 200, "content-type": "application/json" });
      stream.end(this.replies.get(path) ?? JSON.stringify(reply));
    });
  }

  private frames(connection: ServerHttp2Stream, id: string): void {
    let kept: Kept | undefined;
    const decoder = new FrameDecoder({
      frame: (type, payload) => {
        if (type === FrameType.START) kept = this.start(connection, decodeJson(type, payload));
        else if (type === FrameType.ATTACH) {
          kept = this.streams.get(id);
          if (kept === undefined) {
            const failure = { code: "ERR_AGENT_STREAM_NOT_FOUND", message: `No stream ${id}` };
            connection.end(encodeJson(FrameType.FAIL, failure));
          } else {
            const value = decodeJson(type, payload);
            this.attach(
              kept,
              connection,
              offsetField(value, "stdout"),
              offsetField(value, "stderr"),
            );
          }
        } else if (kept !== undefined) this.control(kept, type, payload);
      },
      data: (_type, offset, bytes) => {
        if (kept === undefined) return;
        const fresh = bytes.subarray(kept.stdin.length - Number(offset));
        kept.stdin = Buffer.concat([kept.stdin, fresh]);
        const acknowledged = encodeOffset(FrameType.STDIN_ACK, BigInt(kept.stdin.length));
        if (connection.writable) connection.write(acknowledged);
        if (fresh.length > 0) this.commands[kept.argv[0] ?? ""]?.(kept, "input");
      },
    });
    connection.on("data", (chunk: Buffer) => decoder.push(chunk));
    connection.on("close", () => {
      if (kept?.connection === connection) delete kept.connection;
    });
  }

  private control(kept: Kept, type: number, payload: Buffer): void {
    const command = this.commands[kept.argv[0] ?? ""];
    if (type === FrameType.STDIN_EOF) {
      if (Number(decodeOffset(payload)) !== kept.stdin.length)
        throw new Error("EOF before its data");
      if (kept.stdinEnded) return;
      kept.stdinEnded = true;
      command?.(kept, "input");
    } else if (type === FrameType.SIGNAL) {
      kept.signals.push(decodeSignal(payload).signal);
      command?.(kept, "signal");
    } else if (type === FrameType.ACK) {
      const { stream, offset } = decodeOutput(payload);
      if (stream === 1) kept.acked = Number(offset);
      if (stream === 0) kept.acknowledgedExit = true;
    }
  }

  private start(connection: ServerHttp2Stream, spec: Record<string, unknown>): Kept | undefined {
    this.starts += 1;
    const id = String(spec["id"]);
    const argv = spec["argv"] as string[];
    const command = this.commands[argv[0] ?? ""];
    const existing = this.streams.get(id);
    if (existing !== undefined && this.loseReplies > 0) {
      this.loseReplies -= 1;
      this.cut();
      return existing;
    }
    if (existing !== undefined) {
      this.attach(existing, connection, 0, 0);
      return existing;
    }
    if (command === undefined) {
      const failure = { code: "ERR_AGENT_NOT_FOUND", message: `No command ${argv[0]}` };
      connection.end(encodeJson(FrameType.FAIL, failure));
      return undefined;
    }
    const kept: Kept = {
      id,
      argv,
      stdin: Buffer.alloc(0),
      stdinEnded: false,
      signals: [],
      acked: 0,
      acknowledgedExit: false,
      outputs: { 1: Buffer.alloc(0), 2: Buffer.alloc(0) },
      emit: (stream, bytes) => {
        const offset = BigInt(kept.outputs[stream].length);
        kept.outputs[stream] = Buffer.concat([kept.outputs[stream], bytes]);
        if (kept.connection?.writable === true) {
          kept.connection.write(encodeData(FrameType.STDOUT + stream - 1, offset, bytes));
        }
      },
      exit: (exitCode) => {
        kept.exitCode = exitCode;
        if (kept.connection !== undefined) sendExit(kept.connection, exitCode);
      },
    };
    this.streams.set(id, kept);
    if (this.loseReplies > 0) {
      this.loseReplies -= 1;
      this.cut();
      command(kept, "start");
      return kept;
    }
    this.attach(kept, connection, 0, 0, true);
    command(kept, "start");
    return kept;
  }

  private attach(
    kept: Kept,
    connection: ServerHttp2Stream,
    stdout: number,
    stderr: number,
    created = false,
  ): void {
    kept.connection = connection;
    connection.write(
      encodeJson(FrameType.ATTACHED, {
        id: kept.id,
        pid: 7,
        stdin: String(kept.stdin.length),
        stdout: String(stdout),
        stderr: String(stderr),
        created,
      }),
    );
    for (const [stream, from] of [
      [1, stdout],
      [2, stderr],
    ] as const) {
      for (let at = from; at < kept.outputs[stream].length; at += 100_000) {
        const bytes = kept.outputs[stream].subarray(at, at + 100_000);
        connection.write(encodeData(FrameType.STDOUT + stream - 1, BigInt(at), bytes));
      }
    }
    if (kept.exitCode !== undefined) sendExit(connection, kept.exitCode);
  }
}

/** EXIT, the last frame. */
function sendExit(connection: ServerHttp2Stream, exitCode: number): void {
  const exit = { exitCode, timedOut: false, oomKilled: false, durationMs: 1 };
  if (connection.writable) connection.end(encodeJson(FrameType.EXIT, exit));
}
