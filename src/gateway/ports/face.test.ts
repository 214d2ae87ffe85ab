/** Requests to ports whose servers answer before they have been sent everything. */
import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Hosts } from "../http/hosts.ts";
import { listen } from "../http/server.ts";
import type { Face, ListeningGateway } from "../http/server.ts";
import { proxyRequest } from "./face.ts";

/** More than the buffers on the way have room for. */
const LENGTH = 16 << 20;
const ANSWER = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly";

let guest: Server;
let gateway: ListeningGateway;
let client: Socket;
/** Connections into the guest, and what has come on all of them together. */
let inside: Socket[];
let arrived: number;
/** What the guest does with the first bytes of a connection. */
let onRequest: (socket: Socket) => void;

beforeEach(async () => {
  inside = [];
  arrived = 0;
  guest = createServer((socket) => {
    inside.push(socket);
    socket.on("error", () => undefined);
    socket.once("data", () => onRequest(socket));
    socket.on("data", (bytes: Buffer) => (arrived += bytes.length));
  }).listen(0, "127.0.0.1");
  await once(guest, "listening");
  const { port } = guest.address() as AddressInfo;
  const face: Face = {
    name: "ports",
    claims: () => true,
    handle: async (request, response) => {
      const connection = connect(port, "127.0.0.1");
      await proxyRequest(request, response, { connection, host: undefined });
    },
  };
  const log = { info: () => undefined, error: () => undefined };
  gateway = await listen({
    address: { host: "127.0.0.1", port: 0 },
    hosts: new Hosts([]),
    faces: [face],
    log,
  });
  client = connect({ port: gateway.port, host: "127.0.0.1", allowHalfOpen: true });
  client.on("error", () => undefined);
});

afterEach(async () => {
  client.destroy();
  for (const socket of inside) socket.destroy();
  guest.close();
  await gateway.close();
});

/** Begin an upload. @returns when its answer is there */
async function begin(connection: string): Promise<string> {
  client.write(
    `POST / HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: ${connection}\r\ncontent-length: ${LENGTH}\r\n\r\nx`,
  );
  return await answer();
}

async function answer(): Promise<string> {
  let text = "";
  client.on("data", (bytes: Buffer) => (text += bytes.toString("latin1")));
  await vi.waitFor(() => expect(text).toMatch(/early$/), { timeout: 10_000 });
  client.removeAllListeners("data");
  return text;
}

/** The rest of it. */
async function send(): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    client.write(Buffer.alloc(LENGTH - 1), (error) => (error ? reject(error) : resolve()));
  });
}

test.each(["keep-alive", "close"])(
  "a server that answers first and reads on gets everything (connection: %s)",
  async (connection) => {
    onRequest = (socket) => void socket.write(ANSWER);
    expect(await begin(connection)).toMatch(/^HTTP\/1\.1 200 /);
    await send();
    await vi.waitFor(() => expect(arrived).toBeGreaterThan(LENGTH), { timeout: 10_000 });
    // And nothing stays open.
    await vi.waitFor(() => expect(inside[0]?.readableEnded).toBe(true), { timeout: 10_000 });
  },
);

test("one that answers and goes holds its client up no more, nor the next request of it", async () => {
  onRequest = (socket) => void socket.end(ANSWER, () => socket.destroy());
  expect(await begin("keep-alive")).toMatch(/^HTTP\/1\.1 200 /);
  await send();
  expect(arrived).toBeLessThan(LENGTH);
  client.write("GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
  expect(await answer()).toMatch(/^HTTP\/1\.1 200 /);
  expect(inside.length).toBe(2);
});

test("a client that leaves after the answer takes the connection into the guest with it", async () => {
  onRequest = (socket) => void socket.write(ANSWER);
  await begin("keep-alive");
  client.destroy();
  await vi.waitFor(() => expect(inside[0]?.readableEnded || inside[0]?.destroyed).toBe(true));
});

test("a server that never ends a connection keeps none", async () => {
  onRequest = (socket) => void socket.write(ANSWER);
  guest.on("connection", (socket: Socket) => (socket.allowHalfOpen = true));
  client.write("GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
  await answer();
  await vi.waitFor(() => expect(inside[0]?.readableEnded).toBe(true));
  // What it still says meets nobody.
  const [socket] = inside;
  await vi.waitFor(() => expect(socket?.write("x") === false || socket?.destroyed).toBe(true), {
    timeout: 10_000,
  });
});
