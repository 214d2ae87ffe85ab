/** Servers that send a secret back: the guest gets to see its placeholder. */
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { wholeBody } from "./bodies.ts";
import {
  api,
  ask,
  bytes,
  get,
  guest,
  hidden,
  inHead,
  seen,
  setUp,
  tearDown,
  value,
} from "./testing/stage.ts";

afterAll(tearDown);
beforeAll(setUp);
afterEach(() => {
  seen.length = 0;
});

describe("a server that sends the value back shows the placeholder", () => {
  test.each([
    ["in an answer of known length", "/known"],
    ["in one in chunks", "/echo"],
    ["in pieces", "/pieces"],
    ["compressed, unasked: gzip", "/coded/gzip"],
    ["brotli", "/coded/br"],
    ["deflate", "/coded/deflate"],
    ["zstd", "/coded/zstd"],
    ["percent-encoded", "/as/percent"],
    ["as JSON", "/as/json"],
    ["in HTML", "/as/html"],
  ])("%s", async (_, path) => {
    const got = await ask(get(path, "Accept-Encoding: gzip, br", "X-Key: $KEY"));
    expect(got).toContain(guest.placeholders["KEY"]);
    expect(got).not.toMatch(/content-encoding/i);
    expect(seen[0]?.raw).toContain("identity");
  });

  test.each([["base64"], ["base64url"], ["hex"]])("as %s: nothing of it is left", async (how) => {
    const got = await ask(get(`/as/${how}`));
    expect(got).toMatch(/\([A-Za-z0-9+/_=-]{20,}\)/);
  });

  test("in an answer of known length, which is right afterwards", async () => {
    const got = await ask(get("/known", "X-Key: $KEY"));
    const length = Number(/content-length: (\d+)/i.exec(got)?.[1]);
    expect(got.length - got.indexOf("\r\n\r\n") - 4).toBe(length);
  });

  test("in a long one, whose length stays", async () => {
    const got = await ask(get("/long"));
    const body = got.slice(got.indexOf("\r\n\r\n") + 4);
    expect(body.length).toBe(3_000_000 + bytes.length + 9);
    expect(Number(/content-length: (\d+)/i.exec(got)?.[1])).toBe(body.length);
    expect(body).toMatch(/^\.{3000000}vmsanSecret[0-9a-f]+!{9}$/);
  });

  test("to a client of HTTP/1.0, whose answer ends with the connection", async () => {
    const got = await ask("GET /echo HTTP/1.0\nHost: $HOST\n\n");
    expect(got).not.toMatch(/transfer-encoding/i);
    expect(got).toContain(guest.placeholders["KEY"]);
  });

  test("in fields, the reason and a redirect; nothing leads around the proxy", async () => {
    const got = await ask(get("/fields"));
    const { KEY } = guest.placeholders;
    expect(got).toContain(`200 Fine ${KEY}`);
    expect(got).toContain(`X-Echo: ${KEY}`);
    expect(got).toContain(`a=${KEY}`);
    expect(got).toContain(`Location: https://other.test/?${KEY}`);
    expect(got).not.toMatch(/alt-svc/i);
  });

  test("a redirect to another domain has the placeholder, and so has the request there", async () => {
    const got = await ask(get("/moved/$KEY"));
    expect(got).toMatch(/^HTTP\/1\.1 302 /);
    expect(got).toContain(`/?k=${guest.placeholders["KEY"]}`);
  });

  test.each([["/trailers"], ["/hints"]])("%s do not pass", async (path) => {
    const got = await ask(get(path, "TE: trailers"));
    expect(got).toMatch(/^HTTP\/1\.1 200 /);
    expect(got).not.toMatch(/X-End|preload/);
  });

  test("in parts: they are not asked for", async () => {
    const got = await ask(get("/part", "Range: bytes=0-4", "If-Range: x"));
    expect(got).toMatch(/^HTTP\/1\.1 200 /);
    expect(seen[0]?.raw).not.toMatch(/range/i);
  });

  test("an answer that breaks off looks broken off, and its begin is not shown", async () => {
    const got = await ask(get("/cut"));
    expect(got).not.toContain("s3cr3t");
  });

  test("a coding that is not known is refused", async () => {
    expect(await ask(get("/coded/rot13"))).toMatch(/^HTTP\/1\.1 502 /);
  });
});

describe("WebSockets", () => {
  /** A client over the guest's way. */
  async function open(path: string, headers: Record<string, string> = {}): Promise<WebSocket> {
    const socket = await guest.secure(api.port, "api.test");
    return new WebSocket(`wss://api.test:${api.port}${path}`, {
      headers,
      createConnection: () => socket,
    });
  }

  test("the handshake and messages have the value, what comes back has not", async () => {
    const { KEY = "" } = guest.placeholders;
    const ws = await open(`/socket?k=${KEY}`, { Authorization: `Bearer ${KEY}` });
    const got: string[] = [];
    const four = new Promise<void>((resolve) => {
      ws.on("message", (data) => {
        got.push((data as Buffer).toString("latin1"));
        if (got.length === 4) resolve();
      });
    });
    ws.on("open", () => {
      ws.send(`{"k":"${KEY}"}`);
      ws.send(Buffer.from(KEY));
    });
    await four;
    hidden(got.join());
    expect(got).toEqual([KEY, KEY, `{"k":"${KEY}"}`, KEY]);
    const [request] = seen;
    expect(request?.raw).toContain(inHead);
    expect(decodeURIComponent(request?.url ?? "")).toContain(value);
    expect(request?.body).toContain(JSON.stringify({ k: value }));
    expect(request?.raw).not.toContain("permessage-deflate");
    ws.close(1000);
    await once(ws, "close");
  });

  test("one that the server refuses", async () => {
    const ws = await open("/no");
    const [, response] = (await once(ws, "unexpected-response")) as [unknown, IncomingMessage];
    const body = await wholeBody(response, 1 << 20);
    const { statusCode, statusMessage = "", rawHeaders } = response;
    expect(statusCode).toBe(401);
    hidden(`${statusMessage}${rawHeaders.join()}${body.toString("latin1")}`);
  });

  test("one that the server refuses with a body that is compressed, or coded in an unknown way", async () => {
    const ws = await open("/no/gzip");
    const [, response] = (await once(ws, "unexpected-response")) as [unknown, IncomingMessage];
    expect((await wholeBody(response, 1 << 20)).toString()).toBe(guest.placeholders["KEY"]);
    const [error] = (await once(await open("/no/rot13"), "error")) as [Error];
    expect(error.message).not.toContain("401");
  });

  test("an offer of another protocol is none", async () => {
    const got = await ask(
      get("/echo", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk").replace("close", "close, Upgrade"),
    );
    expect(got).toMatch(/^HTTP\/1\.1 200 /);
    expect(seen[0]?.raw).not.toMatch(/h2c|HTTP2-Settings/i);
  });
});
