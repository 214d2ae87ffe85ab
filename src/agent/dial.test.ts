/** Connections into the guest, on the real agent as a process. */
import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { afterEach, expect, test } from "vitest";
import { fakeGuest } from "../../test/exec-cases/fake-guest.ts";
import { listStreams } from "./commands.ts";
import { dialGuest } from "./dial.ts";
import type { Endpoint } from "./ports.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A server where the fake guest finds it. */
async function serve(onConnection: (socket: Socket) => void): Promise<Endpoint> {
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    // Whoever is cut off in the guest is reset here.
    socket.on("error", () => undefined);
    onConnection(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanups.push(() => server.close());
  return { network: "tcp", host: "127.0.0.1", port: (server.address() as AddressInfo).port };
}

test("what is destroyed keeps nothing in the guest", async () => {
  const guest = await fakeGuest();
  cleanups.push(guest.close);
  const endpoint = await serve((socket) => socket.end("hi"));
  const connection = await dialGuest(guest.channel, endpoint);
  let text = "";
  for await (const chunk of connection) text += String(chunk);
  expect(text).toBe("hi");
  // The peer has ended its half alone.
  expect(connection.writable).toBe(true);
  connection.destroy();
  const running = async (): Promise<number> =>
    (await listStreams(guest.channel)).filter((stream) => stream.running).length;
  await expect.poll(running).toBe(0);
});

test("a guest that goes away breaks the connection, and nothing else", async () => {
  const guest = await fakeGuest();
  const endpoint = await serve((socket) => socket.write("hi"));
  const connection = await dialGuest(guest.channel, endpoint);
  await once(connection, "data");
  const broken = once(connection, "close").catch((error: unknown) => error);
  await guest.close();
  await expect(broken).resolves.toBeInstanceOf(Error);
});

test("what is written behind the peer's own end arrives whole", async () => {
  const guest = await fakeGuest();
  cleanups.push(guest.close);
  let received = 0;
  const endpoint = await serve((socket) => {
    socket.end("bye");
    socket.on("data", (piece: Buffer) => (received += piece.length));
  });
  const connection = await dialGuest(guest.channel, endpoint);
  connection.resume();
  await once(connection, "end");
  // More than may be under way unacknowledged.
  connection.end(Buffer.alloc(8 << 20));
  await once(connection, "close");
  await expect.poll(() => received, { timeout: 20_000 }).toBe(8 << 20);
});
