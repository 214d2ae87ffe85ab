/** Connections that are switched without node:http, against a server that answers by bytes. */
import { createServer } from "node:net";
import type { Server, Socket } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, expect, test } from "vitest";
import { temporary } from "../../../test/fixtures/ladder.ts";
import { switchUnix } from "./upgrade.ts";

const place = temporary();
const SWITCH = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: vmsan-stream\r\n\r\n";
let server: Server;
afterEach(() => void server.close());

/** Ask a server that does this once it has been asked. */
async function asked(
  answer: (socket: Socket) => void,
  signal?: AbortSignal,
): Promise<{ socket: Socket | undefined; watched: number }> {
  const path = join(place.path, "sock");
  server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => answer(socket));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  let watched = 0;
  const watch = (): (() => void) => {
    watched += 1;
    return () => (watched -= 1);
  };
  const socket = await switchUnix(path, "POST / HTTP/1.1\r\n\r\n", watch, signal);
  return { socket, watched };
}

test("what comes with the head, and behind it, is the reader's", async () => {
  const { socket, watched } = await asked((one) => {
    one.write(`${SWITCH}first `);
    setTimeout(() => one.end("last"), 20);
  });
  if (socket === undefined) throw new Error("not switched");
  expect(watched).toBe(0);
  expect(await text(socket)).toBe("first last");
});

test("a reader by events gets it, too, whenever the head's pieces come", async () => {
  const { socket } = await asked((one) => {
    one.write(SWITCH.slice(0, 20));
    setTimeout(() => one.write(SWITCH.slice(20, -1)), 10);
    setTimeout(() => one.end(`${SWITCH.slice(-1)}all`), 20);
  });
  let got = "";
  await new Promise((resolve) => {
    socket?.on("data", (bytes: Buffer) => (got += bytes.toString())).on("close", resolve);
  });
  expect(got).toBe("all");
});

test("any other answer is no switch", async () => {
  expect((await asked((one) => one.end("HTTP/1.1 404 No\r\n\r\n"))).socket).toBeUndefined();
});

test("no answer is a broken connection", async () => {
  await expect(asked((one) => one.destroy())).rejects.toMatchObject({ code: "ECONNRESET" });
});

test("whoever gives up waits no longer", async () => {
  const over = new AbortController();
  await expect(asked(() => over.abort(new Error("enough")), over.signal)).rejects.toThrow("enough");
});
