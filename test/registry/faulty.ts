/**
 * A registry that does wrong on purpose: every request asks a function of the test which
 * fault it gets. It remembers what it was asked and how much it sent.
 */
import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from "node:zlib";
import { blob } from "./fixture.ts";
import type { Blob, FixtureImage } from "./fixture.ts";

/** What goes wrong with one request. */
export type Fault =
  /** Send so many bytes of the body (all of Content-Length announced), then cut the line. */
  | { kind: "drop"; after: number }
  /** Announce another length than is sent. */
  | { kind: "length"; announced: number }
  | { kind: "status"; status: number; headers?: Record<string, string>; body?: string }
  /** Right length, wrong bytes. */
  | { kind: "corrupt" }
  /** No length, no end. */
  | { kind: "endless" }
  /** One byte every so many milliseconds. */
  | { kind: "drip"; everyMs: number }
  /** The body in pieces, so many bytes each, with a pause in between. */
  | { kind: "slow"; bytes: number; everyMs: number }
  /** Take the request and say nothing. */
  | { kind: "silent" }
  | { kind: "redirect"; to: string }
  /** Answer 200 with everything although a range was asked for. */
  | { kind: "ignoreRange" }
  /** Chunked coding instead of a length. */
  | { kind: "chunked" }
  /** The body with these codings put on, and said; without a length when chunked. */
  | { kind: "coded"; codings: ("gzip" | "deflate" | "br" | "zstd")[]; chunked?: boolean }
  /** Say that the body has a coding that it has not got. */
  | { kind: "mislabelled"; coding: string }
  /** An answer byte by byte, made of the body; the connection is ended behind it. */
  | { kind: "raw"; answer: (body: Buffer) => (string | Buffer)[] };

/** A request as it came. */
export interface Seen {
  /** `manifest`, `blob`, `token` or `other`. */
  kind: string;
  path: string;
  query: string;
  method: string;
  range: string | undefined;
  authorization: string | undefined;
  acceptEncoding: string | undefined;
  /** How many requests came for this path before. */
  earlier: number;
}

/** A running faulty registry. */
export interface FaultyRegistry {
  host: string;
  seen: Seen[];
  /** Bytes of blobs sent, by digest. */
  sent: Map<string, number>;
  /** Which fault a request gets; none by default. */
  fault: (seen: Seen) => Fault | undefined;
  /** When set, requests need `Bearer` with one of these; `/token` gives the last. */
  tokens: Set<string> | undefined;
  /** The token given next. */
  nextToken: () => string;
  /** The token server's answer; by default an object with the token. */
  tokenAnswer: (token: string, query: URLSearchParams) => unknown;
  /** The scope that challenges name; none when undefined. */
  scope: string | undefined;
  stop(): Promise<void>;
}

/** What the registry serves. */
export interface Served {
  repository: string;
  tags: Record<string, Blob>;
  images: FixtureImage[];
  /** Further documents by digest. */
  more?: Blob[];
}

const CODERS = {
  gzip: gzipSync,
  deflate: deflateSync,
  br: brotliCompressSync,
  zstd: zstdCompressSync,
};

/** Send junk until the client has had enough. */
async function sendForever(response: ServerResponse, type: string): Promise<void> {
  response.writeHead(200, { "content-type": type });
  const junk = Buffer.alloc(65_536);
  const closed = new Promise((resolve) => response.once("close", resolve));
  while (!response.destroyed) {
    if (response.write(junk)) continue;
    await Promise.race([new Promise((resolve) => response.once("drain", resolve)), closed]);
  }
}

/** Send a body with a fault or without. */
async function sendBody(
  request: IncomingMessage,
  response: ServerResponse,
  found: Blob,
  fault: Fault | undefined,
  count: (bytes: number) => void,
): Promise<void> {
  const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? "");
  const start = fault?.kind === "ignoreRange" || range === null ? 0 : Number(range[1]);
  if (start >= found.size && start > 0) {
    response.writeHead(416).end();
    return;
  }
  let bytes = found.bytes.subarray(start);
  const headers: Record<string, string | number> = {
    "content-type": found.mediaType,
    "docker-content-digest": found.digest,
    "content-length": bytes.length,
  };
  if (start > 0) headers["content-range"] = `bytes ${start}-${found.size - 1}/${found.size}`;
  const status = start > 0 ? 206 : 200;
  if (fault?.kind === "drop") {
    response.writeHead(status, headers);
    bytes = bytes.subarray(0, fault.after);
    count(bytes.length);
    if (bytes.length > 0) response.write(bytes, () => response.destroy());
    else response.destroy();
    return;
  }
  if (fault?.kind === "length") {
    response.writeHead(status, { ...headers, "content-length": fault.announced });
    response.write(bytes.subarray(0, fault.announced), () => response.destroy());
    return;
  }
  if (fault?.kind === "endless") {
    await sendForever(response, found.mediaType);
    return;
  }
  if (fault?.kind === "drip" || fault?.kind === "slow") {
    const piece = fault.kind === "drip" ? 1 : fault.bytes;
    response.writeHead(status, headers);
    for (let at = 0; at < bytes.length && !response.destroyed; at += piece) {
      const part = bytes.subarray(at, at + piece);
      count(part.length);
      response.write(part);
      await sleep(fault.everyMs);
    }
    response.end();
    return;
  }
  if (fault?.kind === "corrupt") {
    bytes = Buffer.from(bytes);
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
  }
  if (fault?.kind === "raw") {
    const { socket } = request;
    const whole = fault.answer(bytes).map((part) => Buffer.from(part));
    socket.end(Buffer.concat(whole));
    count(bytes.length);
    return;
  }
  if (fault?.kind === "coded") {
    for (const coding of fault.codings) bytes = CODERS[coding](bytes);
    headers["content-encoding"] = fault.codings.join(", ");
    headers["content-length"] = bytes.length;
  }
  if (fault?.kind === "mislabelled") headers["content-encoding"] = fault.coding;
  const chunked = fault?.kind === "chunked" || (fault?.kind === "coded" && fault.chunked === true);
  if (chunked) delete headers["content-length"];
  response.writeHead(status, headers);
  count(bytes.length);
  for (let at = 0; at < bytes.length; at += 65_536) response.write(bytes.subarray(at, at + 65_536));
  response.end();
}

/** Start one on loopback that has an image as library/app:latest. */
export async function serveFaulty(image: FixtureImage): Promise<FaultyRegistry> {
  return await startFaulty({
    repository: "library/app",
    tags: { latest: image.manifest },
    images: [image],
  });
}

/** Start a faulty registry on loopback. */
export async function startFaulty(served: Served): Promise<FaultyRegistry> {
  const blobs = new Map<string, Blob>();
  for (const { manifest, config, layers } of served.images) {
    for (const each of [manifest, config, ...layers]) blobs.set(each.digest, each);
  }
  for (const each of served.more ?? []) blobs.set(each.digest, each);
  for (const top of Object.values(served.tags)) blobs.set(top.digest, top);
  const counts = new Map<string, number>();
  const registry: FaultyRegistry = {
    host: "",
    seen: [],
    sent: new Map(),
    fault: () => undefined,
    tokens: undefined,
    nextToken: () => "token",
    tokenAnswer: (token) => ({ token }),
    scope: `repository:${served.repository}:pull`,
    stop: () => Promise.resolve(),
  };
  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const [path = "", query = ""] = (request.url ?? "").split("?");
    const match = /^\/v2\/(.+)\/(manifests|blobs)\/([^/]+)$/.exec(path);
    const kind = path.startsWith("/token")
      ? "token"
      : match === null
        ? "other"
        : (match[2] ?? "").slice(0, -1);
    const earlier = counts.get(path) ?? 0;
    counts.set(path, earlier + 1);
    const { range, authorization, "accept-encoding": accepted } = request.headers;
    const acceptEncoding = Array.isArray(accepted) ? accepted.join() : accepted;
    const method = request.method ?? "";
    const seen: Seen = { kind, path, query, method, range, authorization, acceptEncoding, earlier };
    registry.seen.push(seen);
    const fault = registry.fault(seen);
    if (fault?.kind === "silent") return;
    if (fault?.kind === "status") {
      response.writeHead(fault.status, fault.headers).end(fault.body ?? "");
      return;
    }
    if (fault?.kind === "redirect") {
      response.writeHead(307, { location: fault.to }).end();
      return;
    }
    if (kind === "token") {
      const token = registry.nextToken();
      registry.tokens?.add(token);
      const answer = registry.tokenAnswer(token, new URLSearchParams(query));
      const bytes = Buffer.from(JSON.stringify(answer));
      await sendBody(request, response, blob("application/json", bytes), fault, () => undefined);
      return;
    }
    const bearer = authorization?.replace(/^Bearer /, "") ?? "";
    if (registry.tokens !== undefined && !registry.tokens.has(bearer)) {
      const realm = `http://${registry.host}/token`;
      const challenge = `Bearer realm="${realm}",service="test"`;
      const scope = registry.scope === undefined ? "" : `,scope="${registry.scope}"`;
      response.writeHead(401, { "www-authenticate": `${challenge}${scope}` }).end();
      return;
    }
    if (match === null) {
      response.end("{}");
      return;
    }
    const [, repository, , name = ""] = match;
    const found = served.tags[name] ?? blobs.get(name);
    if (repository !== served.repository || found === undefined) {
      response.writeHead(404).end('{"errors":[{"code":"UNKNOWN","message":"not here"}]}');
      return;
    }
    const count = (bytes: number): void => {
      registry.sent.set(found.digest, (registry.sent.get(found.digest) ?? 0) + bytes);
    };
    await sendBody(request, response, found, fault, count);
  };
  const server = createServer((request, response) => {
    response.on("error", () => undefined);
    handle(request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  registry.host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  registry.stop = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return registry;
}
