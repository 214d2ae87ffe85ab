/**
 * Servers that send back all that they are told and know, and a guest that may try to learn its secret
 * from them.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from "node:zlib";
import { expect } from "vitest";
import { WebSocketServer } from "ws";
import { wholeBody } from "../bodies.ts";
import { takingOut } from "../forms.ts";
import { guestWith, readAll, serve, type Guest, type Peer } from "./guest.ts";

/** With everything that some part of a request writes in another way. */
export const value = 's3cr3t/+"&<é>=% value!';
/** The value as it travels in a body. */
export const bytes = Buffer.from(value);
/** The value as Node.js shows it in a head. */
export const inHead = bytes.toString("latin1");

/** What a server has been asked. */
export interface Seen {
  method: string;
  url: string;
  raw: string;
  body: string;
  httpVersion: string;
}

/** What the servers have been asked, in order. */
export const seen: Seen[] = [];
/** `api.test`, which gets the value. */
export let api: Peer;
/** Unencrypted. */
export let plain: Peer;
/** `other.test`, which no secret is for. */
export let other: Peer;
/** Has the certificate of another name than the one that it is asked by. */
export let unproven: Peer;
/** Has a secret for the first server and for the unencrypted one. */
export let guest: Guest;

/** Sends the value back in every way that a server may. */
async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const body = await wholeBody(request, 1 << 26);
  const { method = "", url = "", rawHeaders, httpVersion } = request;
  const raw = rawHeaders.join("\n");
  seen.push({ method, url, raw, body: body.toString("latin1"), httpVersion });
  const coded: Record<string, (data: Buffer) => Buffer> = {
    gzip: gzipSync,
    br: brotliCompressSync,
    deflate: deflateSync,
    zstd: zstdCompressSync,
    rot13: (data) => data,
  };
  const [, what = "", how = ""] = /^\/([^/?]*)\/?([^/?]*)/.exec(url) ?? [];
  const page = Buffer.from(`[${value}|${raw}|${url}|`);
  switch (what) {
    case "coded":
      response.setHeader("Content-Encoding", how);
      response.end(coded[how]?.(page));
      return;
    case "pieces":
      for (const byte of bytes) {
        response.write(Buffer.from([byte]));
        await new Promise((resolve) => setImmediate(resolve));
      }
      response.end("end");
      return;
    case "long": {
      const long = Buffer.concat([Buffer.alloc(3_000_000, "."), bytes, Buffer.alloc(9, "!")]);
      response.setHeader("Content-Length", long.length);
      response.end(long);
      return;
    }
    case "known":
      response.setHeader("Content-Length", page.length);
      response.end(page);
      return;
    case "as": {
      const forms: Record<string, string> = {
        base64: Buffer.from(`user:${value}`).toString("base64"),
        base64url: Buffer.from(`{"a":"${value}"}`).toString("base64url"),
        hex: bytes.toString("hex"),
        json: JSON.stringify({ value }),
        percent: encodeURIComponent(value),
        html: value.replaceAll("&", "&amp;").replaceAll("<", "&lt;"),
      };
      response.end(`(${forms[how]})`);
      return;
    }
    case "fields":
      response.writeHead(200, `Fine ${inHead}`, {
        "X-Echo": inHead,
        "Set-Cookie": `a=${encodeURIComponent(value)}`,
        "Alt-Svc": 'h3=":443"',
        Location: `https://other.test/?${encodeURIComponent(value)}`,
      });
      response.end();
      return;
    case "moved":
      response.writeHead(302, { Location: `https://other.test:${other.port}/?k=${url.slice(7)}` });
      response.end();
      return;
    case "trailers":
      response.writeHead(200, { Trailer: "X-End" });
      response.write("a");
      response.addTrailers({ "X-End": inHead });
      response.end();
      return;
    case "cut":
      response.setHeader("Content-Length", 1000);
      response.write(bytes.subarray(0, 10), () => response.destroy());
      return;
    case "hints":
      response.writeEarlyHints({ link: `</${encodeURIComponent(value)}>; rel=preload` });
      response.end("after hints");
      return;
    case "part":
      response.writeHead(request.headers.range === undefined ? 200 : 206);
      response.end(request.headers.range === undefined ? page : bytes.subarray(0, 5));
      return;
    default:
      response.end(page);
  }
}

/** Start everything; to be called before the tests of a file. */
export async function setUp(): Promise<void> {
  api = await serve((...both) => void answer(...both), "api.test");
  plain = await serve((...both) => void answer(...both));
  other = await serve((...both) => void answer(...both), "other.test");
  unproven = await serve((...both) => void answer(...both), "else.test");
  const sockets = new WebSocketServer({ noServer: true });
  api.server.on("upgrade", (request, socket, head) => {
    seen.push({
      method: "WS",
      url: request.url ?? "",
      raw: request.rawHeaders.join("\n"),
      body: "",
      httpVersion: "",
    });
    if (request.url === "/no") {
      socket.end(`HTTP/1.1 401 No ${inHead}\r\nX-Echo: ${inHead}\r\n\r\n${inHead}`, "latin1");
      return;
    }
    const [, coding] = /^\/no\/(gzip|rot13)$/.exec(request.url ?? "") ?? [];
    if (coding !== undefined) {
      socket.write(`HTTP/1.1 401 No\r\nContent-Encoding: ${coding}\r\nConnection: close\r\n\r\n`);
      socket.end(coding === "gzip" ? gzipSync(value) : bytes);
      return;
    }
    sockets.handleUpgrade(request, socket, head, (ws) => {
      ws.send(value);
      ws.send(bytes);
      ws.on("message", (data, binary) => {
        const last = seen.at(-1);
        if (last !== undefined) last.body += (data as Buffer).toString();
        ws.send(data, { binary });
      });
    });
  });
  guest = await guestWith({
    secrets: [
      {
        name: "KEY",
        value,
        places: ["header", "query", "body"],
        domains: [
          { scheme: "https", host: "api.test", port: api.port },
          { scheme: "https", host: "*.deep.test", port: api.port },
          { scheme: "https", host: "api.test", port: unproven.port },
          { scheme: "http", host: "plain.test", port: plain.port },
        ],
      },
      {
        name: "HEADER_ONLY",
        value: "only in heads",
        places: ["header"],
        domains: [{ scheme: "https", host: "api.test", port: api.port }],
      },
      {
        name: "ELSEWHERE",
        value: "for another domain",
        places: ["header", "query", "body"],
        domains: [{ scheme: "https", host: "elsewhere.test", port: api.port }],
      },
    ],
    leadsTo: (name) => name === "plain.test",
  });
}

/** End everything. */
export async function tearDown(): Promise<void> {
  guest.close();
  await Promise.all([api, plain, other, unproven].map(async (peer) => await peer.close()));
}

/** Every form in which a value could be read. */
const tells = takingOut(
  [value, "only in heads", "for another domain"].map((each) => ({
    name: "",
    value: each,
    places: [],
    domains: [],
    placeholder: "",
  })),
  false,
).map(({ from }) => from);

/** Nothing that the guest got, and nothing that is noted, holds a value. */
export function hidden(got: string): void {
  const text = Buffer.from(got, "latin1");
  for (const form of tells) expect(text.includes(form), form.toString()).toBe(false);
  const noted = JSON.stringify(guest.decisions);
  for (const form of tells) expect(noted.includes(form.toString()), form.toString()).toBe(false);
}

/** Fill in placeholders and the host, and end lines as HTTP does. */
export function fill(text: string, host: string): string {
  const { KEY = "", HEADER_ONLY = "", ELSEWHERE = "" } = guest.placeholders;
  const filled = text
    .replaceAll("$KEY", KEY)
    .replaceAll("$HEADER_ONLY", HEADER_ONLY)
    .replaceAll("$ELSEWHERE", ELSEWHERE)
    .replaceAll("$BASIC", Buffer.from(`user:${KEY}`).toString("base64"))
    .replaceAll("$HOST", host)
    .replaceAll("\n", "\r\n");
  const body = filled.slice(filled.indexOf("\r\n\r\n") + 4);
  return filled.replace("$LENGTH", String(body.length));
}

/** Send bytes over TLS to a name and port; gives everything that comes back. */
export async function ask(
  text: string,
  to: { name?: string; port?: number; pieces?: number } = {},
): Promise<string> {
  const { name = "api.test", port = api.port, pieces } = to;
  const socket = await guest.secure(port, name);
  const request = Buffer.from(fill(text, `${name}:${port}`), "latin1");
  const reply = readAll(socket).catch((error: unknown) => `broken: ${String(error)}`);
  if (pieces === undefined) socket.write(request);
  else {
    for (let at = 0; at < request.length; at += pieces) {
      socket.write(request.subarray(at, at + pieces));
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  const got = await reply;
  hidden(got);
  return got;
}

/** A request that closes its connection. */
export const get = (path: string, ...fields: string[]): string =>
  `GET ${path} HTTP/1.1\nHost: $HOST\nConnection: close\n${fields.map((field) => `${field}\n`).join("")}\n`;
/** One with a body. */
export const post = (body: string, ...fields: string[]): string =>
  `POST /echo HTTP/1.1\nHost: $HOST\nConnection: close\nContent-Length: $LENGTH\n${fields.map((field) => `${field}\n`).join("")}\n${body}`;
