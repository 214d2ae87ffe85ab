/** What a guest may do to the process that has its secret: nothing beyond bounds. */
import { once } from "node:events";
import { afterAll, beforeAll, expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { replaceAll } from "./replace.ts";
import { guestWith, readAll, serve, type Guest, type Peer } from "./testing/guest.ts";

/** Shorter than its placeholder. */
const short = "pass-123";
/** Many times as long as its placeholder, as signed tokens are. */
const value = `eyJ.${"0123456789".repeat(400)}`;
let api: Peer;
let guest: Guest;
let asked = 0;

const sockets = new WebSocketServer({ noServer: true });

beforeAll(async () => {
  // Nobody is answered.
  api = await serve((request) => {
    asked += 1;
    request.resume();
  }, "api.test");
  api.server.on("upgrade", (request, socket, head) => {
    sockets.handleUpgrade(request, socket, head, (ws) => {
      ws.on("error", () => undefined);
      ws.on("message", () => ws.close(4000, short.repeat(15)));
    });
  });
  guest = await guestWith({
    secrets: [
      {
        name: "SHORT",
        value: short,
        places: ["header"],
        domains: [{ scheme: "https", host: "api.test", port: api.port }],
      },
      {
        name: "KEY",
        value,
        places: ["header", "query", "body"],
        domains: [{ scheme: "https", host: "api.test", port: api.port }],
      },
    ],
  });
});

afterAll(async () => {
  guest.close();
  for (const ws of sockets.clients) ws.terminate();
  await api.close();
});

async function open(): Promise<WebSocket> {
  const socket = await guest.secure(api.port, "api.test");
  const ws = new WebSocket(`wss://api.test:${api.port}/`, { createConnection: () => socket });
  ws.on("error", () => undefined);
  await once(ws, "open");
  return ws;
}

test("a reason for closing that becomes too long is left out", async () => {
  const ws = await open();
  ws.send("end");
  const [code, reason] = (await once(ws, "close")) as [number, Buffer];
  expect([code, reason.length]).toEqual([4000, 0]);
});

test("a message that becomes too long ends the WebSocket", async () => {
  const ws = await open();
  ws.send((guest.placeholders["KEY"] ?? "").repeat(20_000));
  const [code] = (await once(ws, "close")) as [number];
  expect(code).toBe(1009);
});

test("a body that becomes too long is refused", async () => {
  const socket = await guest.secure(api.port, "api.test");
  const body = (guest.placeholders["KEY"] ?? "").repeat(20_000);
  socket.write(
    `POST / HTTP/1.1\r\nHost: api.test:${api.port}\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  );
  expect(await readAll(socket)).toMatch(/^HTTP\/1\.1 413 /);
});

test("a piece of a stream that becomes too long ends it", async () => {
  const socket = await guest.secure(api.port, "api.test");
  const body = (guest.placeholders["KEY"] ?? "").repeat(1000);
  socket.write(
    `POST / HTTP/1.1\r\nHost: api.test:${api.port}\r\nTransfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n`,
  );
  // Cut, or ended without an answer.
  expect(await readAll(socket).catch(() => "")).toBe("");
});

test("messages that have begun share one room, however many WebSockets there are", async () => {
  const all = await Promise.all([open(), open(), open()]);
  const ended = new Promise<void>((resolve) => {
    for (const ws of all) ws.on("close", () => resolve());
  });
  for (const ws of all) ws.send(Buffer.alloc(30 << 20), { fin: false });
  await ended;
  for (const ws of all) ws.terminate();
});

test("requests that wait for one another have a bound", async () => {
  const socket = await guest.secure(api.port, "api.test");
  const before = asked;
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  socket.on("error", () => undefined);
  for (let at = 0; at < 2000; at += 1) {
    socket.write(`GET /${at} HTTP/1.1\r\nHost: api.test:${api.port}\r\n\r\n`);
  }
  socket.resume();
  await closed;
  // None of them is asked afterwards, or goes on.
  const connections = async (): Promise<number> =>
    await new Promise((resolve) => api.server.getConnections((_, count) => resolve(count)));
  await expect.poll(connections, { timeout: 10_000 }).toBe(0);
  expect(asked - before).toBeLessThan(10);
});

test("what grows beyond a limit is not put together", () => {
  const replacements = [{ from: Buffer.from("a"), to: Buffer.alloc(1000) }];
  expect(() => replaceAll(Buffer.alloc(100, "a"), replacements, 50_000)).toThrow(RangeError);
  expect(replaceAll(Buffer.alloc(50, "a"), replacements, 50_000)).toHaveLength(50_000);
});
