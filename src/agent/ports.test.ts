/** Ports through the real agent as a process, whose host is this one. */
import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { fakeGuest } from "../../test/exec-cases/fake-guest.ts";
import type { FakeGuest } from "../../test/exec-cases/fake-guest.ts";
import { forwardToGuest } from "./ports.ts";

let guest: FakeGuest;
beforeAll(async () => void (guest = await fakeGuest()));
afterAll(async () => await guest.close());

test("a port that no longer takes input holds no client up, and the client's end is seen", async () => {
  const peers: Socket[] = [];
  const peer = createServer({ allowHalfOpen: true }, (socket) => {
    peers.push(socket.on("error", () => undefined));
    socket.pause();
    socket.end("bye");
  }).listen(0, "127.0.0.1");
  await once(peer, "listening");
  const { port } = peer.address() as AddressInfo;
  const forwarding = await forwardToGuest(
    guest.channel,
    { network: "tcp", host: "127.0.0.1", port: 0 },
    { network: "tcp", host: "127.0.0.1", port },
  );
  const local = forwarding.address as { port: number };
  const client = connect({ port: local.port, host: "127.0.0.1", allowHalfOpen: true });
  // More than all buffers on the way have room for.
  client.end(Buffer.alloc(64 << 20));
  const [said] = (await once(client, "data")) as [Buffer];
  expect(said.toString()).toBe("bye");
  for (const socket of peers) socket.destroy();
  await once(client, "close");
  expect(client.bytesWritten).toBe(64 << 20);
  await expect.poll(() => forwarding.connections, { timeout: 20_000 }).toBe(0);
  await forwarding.close();
  peer.close();
});
