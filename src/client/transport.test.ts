import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { expect, test } from "vitest";
import { Transport } from "./transport.ts";

test("an upload that is answered before it has been read ends with the answer", async () => {
  const dir = mkdtempSync(join(tmpdir(), "vmsan-transport-"));
  const path = join(dir, "sock");
  const ends: Promise<unknown>[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket: Socket) => {
    socket.on("error", () => undefined);
    // It takes nothing more, and leaves its half open.
    socket.once("data", () => {
      const body = JSON.stringify({ error: { code: "ERR_VOLUME_NAME_TAKEN", message: "taken" } });
      socket.pause();
      socket.write(`HTTP/1.1 409 Conflict\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
      ends.push(new Promise((resolve) => socket.once("close", resolve)));
      // Told of by a write when nothing is read.
      const poke = setInterval(() => socket.write(" "), 50);
      socket.once("close", () => clearInterval(poke));
    });
  });
  server.listen(path);
  await once(server, "listening");
  const pieces = function* (): Generator<Buffer> {
    for (;;) yield Buffer.alloc(1 << 20);
  };
  const upload = (): Readable => Readable.from(pieces());
  await expect(
    new Transport(path).call("POST", "/v1/volumes/import", { upload }),
  ).rejects.toMatchObject({ code: "ERR_VOLUME_NAME_TAKEN" });
  await expect.poll(() => ends.length).toBe(1);
  await Promise.all(ends);
  server.close();
  rmSync(dir, { recursive: true });
});
