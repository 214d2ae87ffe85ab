/** How answers travel: JSON, lines, and connections that both sides go on to use. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { collect } from "../../../util/flow/collect.ts";
import { asDockerError, DockerError } from "../errors.ts";

/** The version of the API that is spoken, and the oldest that is understood. */
export const API_VERSION = "1.47";
/** See {@link API_VERSION}. */
export const MIN_API_VERSION = "1.24";

/** Most bytes of a JSON body. */
const MAX_BODY = 4 << 20;

/** On every answer of the engine. */
export const ENGINE_HEADERS: Record<string, string> = {
  "Api-Version": API_VERSION,
  "Docker-Experimental": "false",
  Ostype: "linux",
  Server: "vmsan (linux)",
};

/** Decode one part of a path. @throws 400 */
export function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (error) {
    throw new DockerError(400, "the path is not percent-encoded UTF-8", error);
  }
}

/** Send a value as the engine does. */
export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const body = `${JSON.stringify(value)}\n`;
  response.writeHead(status, {
    ...ENGINE_HEADERS,
    "Content-Type": "application/json",
    "Content-Length": Buffer.byteLength(body),
  });
  response.end(body);
}

/** Send a status without a body. */
export function sendStatus(response: ServerResponse, status: number): void {
  const length = status === 204 || status === 304 ? {} : { "Content-Length": "0" };
  response.writeHead(status, { ...ENGINE_HEADERS, ...length });
  response.end();
}

/** Send an error, or cut the answer short that has begun. */
export function sendError(response: ServerResponse, error: unknown): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const { status, message } = asDockerError(error);
  sendJson(response, status, { message });
}

/** Text of a JSON body. @throws 400 */
export function parseJson(text: string): unknown {
  if (text.trim() === "") return {};
  try {
    const value: unknown = JSON.parse(text);
    return value ?? {};
  } catch (error) {
    throw new DockerError(400, "invalid JSON: the body cannot be read", error);
  }
}

/** A request's JSON body; an empty one is `{}`. @throws 400, 413 */
export async function readJson(request: IncomingMessage): Promise<unknown> {
  const tooLong = (): Error => new DockerError(413, `the body is longer than ${MAX_BODY} bytes`);
  return parseJson((await collect(request, MAX_BODY, tooLong)).toString("utf8"));
}

/** Begin an answer whose body comes bit by bit; its headers go out at once. */
export function beginStream(response: ServerResponse, type: string): void {
  response.writeHead(200, { ...ENGINE_HEADERS, "Content-Type": type });
  response.flushHeaders();
}

/** Write, and wait until more is taken; false when nobody is there any more. */
export async function push(
  sink: Duplex | ServerResponse,
  bytes: Buffer | string,
): Promise<boolean> {
  if (sink.destroyed || sink.writableEnded) return false;
  if (sink.write(bytes)) return true;
  return await new Promise((resolve) => {
    const done = (): void => {
      sink.off("drain", done);
      sink.off("close", done);
      resolve(!sink.destroyed);
    };
    sink.on("drain", done);
    sink.on("close", done);
  });
}

/** The answer to a connection that is taken over, in text. */
function takenOver(upgraded: boolean, tty: boolean): string {
  const type = tty ? "raw" : "multiplexed";
  const lines = upgraded
    ? ["HTTP/1.1 101 UPGRADED", "Connection: Upgrade", "Upgrade: tcp"]
    : ["HTTP/1.1 200 OK"];
  const headers = Object.entries(ENGINE_HEADERS).map(([name, value]) => `${name}: ${value}`);
  return `${[...lines, ...headers, `Content-Type: application/vnd.docker.${type}-stream`].join("\r\n")}\r\n\r\n`;
}

/** A connection that both sides go on to use once {@link Hijack.accept} has answered. */
export interface Hijack {
  /** The request's JSON body. */
  body: unknown;
  /** Answer, and hand the connection over: what the client sends next is the command's input. */
  accept(tty: boolean): Duplex;
  /** Answer without taking the connection over. */
  respond(status: number, value?: unknown): void;
}

/** A connection whose client has asked to switch protocols, its JSON body read. @throws 400 */
export async function upgradeHijack(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<Hijack> {
  const length = Number(request.headers["content-length"] ?? 0);
  if (!Number.isSafeInteger(length) || length < 0 || length > MAX_BODY) {
    throw new DockerError(400, "the body's length is not usable");
  }
  // The parser leaves a body behind such headers to whoever takes the connection.
  let bytes = head;
  while (bytes.length < length) {
    const chunk = await nextChunk(socket);
    if (chunk === undefined) throw new DockerError(400, "the body is cut off");
    bytes = Buffer.concat([bytes, chunk]);
  }
  const body = parseJson(bytes.subarray(0, length).toString("utf8"));
  const rest = bytes.subarray(length);
  return {
    body,
    accept: (tty) => {
      socket.write(takenOver(true, tty));
      if (rest.length > 0) socket.unshift(rest);
      return socket;
    },
    respond: (status, value) => refuseUpgrade(socket, status, value),
  };
}

/** Agree to HTTP/2 on a connection. @param head what came behind the request */
export function acceptHttp2(socket: Duplex, head: Buffer): Duplex {
  socket.write("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
  if (head.length > 0) socket.unshift(head);
  return socket;
}

/** How long a client may keep a connection that has been answered, in milliseconds. */
const LINGER_MS = 5_000;

/** Answer a connection that asked to switch protocols, and end it, whether the client ends its half or not. */
export function refuseUpgrade(socket: Duplex, status: number, value?: unknown): void {
  const text = value === undefined ? "" : `${JSON.stringify(value)}\n`;
  const headers = Object.entries(ENGINE_HEADERS).map(([name, each]) => `${name}: ${each}`);
  socket.end(
    `${[`HTTP/1.1 ${status} Answer`, ...headers, "Content-Type: application/json", `Content-Length: ${Buffer.byteLength(text)}`, "Connection: close"].join("\r\n")}\r\n\r\n${text}`,
  );
  // Read over: with bytes unread the answer itself could be lost to a reset.
  socket.resume();
  const late = setTimeout(() => socket.destroy(), LINGER_MS);
  late.unref();
  socket.once("close", () => clearTimeout(late));
}

async function nextChunk(socket: Duplex): Promise<Buffer | undefined> {
  return await new Promise((resolve, reject) => {
    const settle = (then: () => void) => (): void => {
      socket.off("readable", read);
      socket.off("end", ended);
      socket.off("error", failed);
      then();
    };
    const read = (): void => {
      const chunk = socket.read() as Buffer | null;
      if (chunk !== null) settle(() => resolve(chunk))();
    };
    const ended = settle(() => resolve(undefined));
    const failed = settle(() => reject(new DockerError(400, "the connection broke")));
    socket.on("readable", read);
    socket.on("end", ended);
    socket.on("error", failed);
    read();
  });
}

/**
 * The same for a client that did not ask to switch: the answer has no end but the connection's, and
 * what follows the request's body on it is input (dockerode sends that).
 */
export async function plainHijack(
  request: IncomingMessage,
  response: ServerResponse,
): Promise<Hijack> {
  const body = await readJson(request);
  return {
    body,
    accept: (tty) => {
      const { socket } = request;
      response.detachSocket(socket);
      // Whatever comes is no HTTP any more.
      for (const event of ["data", "end", "close", "timeout", "drain"])
        socket.removeAllListeners(event);
      socket.setTimeout(0);
      socket.write(takenOver(false, tty));
      return socket;
    },
    respond: (status, value) => {
      if (value === undefined) sendStatus(response, status);
      else sendJson(response, status, value);
    },
  };
}
