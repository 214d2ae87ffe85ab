import { once } from "node:events";
import type { AddressInfo, Socket } from "node:net";
import { connect, createServer } from "node:net";
import { Duplex } from "node:stream";
import { expect, test } from "vitest";
import { joined } from "./joined.ts";

/**
 * A stream to a command that ends without having read its input: a whole reply; then HTTP/2 says that
 * no more is wanted, without an error, and Node ends what is written.
 */
class Uninterested extends Duplex {
  private taken: (() => void) | undefined;

  override _read(): void {
    // Pushed below.
  }

  override _write(_bytes: Buffer, _encoding: BufferEncoding, taken: () => void): void {
    this.taken = taken;
    this.push("bye");
    this.push(null);
    this.once("end", () => {
      this.end();
      this.taken?.();
    });
  }
}

test("input that nobody takes holds no client up, and the client's end is seen", async () => {
  const sockets: Socket[] = [];
  const ends: Promise<void>[] = [];
  const daemon = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket);
    ends.push(joined(socket, new Uninterested()));
  });
  daemon.listen(0, "127.0.0.1");
  await once(daemon, "listening");
  const { port } = daemon.address() as AddressInfo;
  const client = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  let said = "";
  client.setEncoding("utf8").on("data", (text: string) => (said += text));
  // More than the buffers between them have room for.
  client.end(Buffer.alloc(64 << 20));
  await once(client, "close");
  await Promise.all(ends);
  expect({ said, sent: client.bytesWritten }).toEqual({ said: "bye", sent: 64 << 20 });
  expect(sockets.map((socket) => socket.destroyed)).toEqual([true]);
  daemon.close();
});
