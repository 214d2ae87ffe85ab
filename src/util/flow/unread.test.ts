import { once } from "node:events";
import { createServer } from "node:http";
import type { IncomingMessage, RequestListener, Server, ServerResponse } from "node:http";
import * as http2 from "node:http2";
import { connect } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { afterEach, expect, test, vi } from "vitest";
import { collect } from "./collect.ts";
import { dropUnread } from "./unread.ts";

/** More than all buffers between two ends have room for. */
const LENGTH = 64 << 20;

let server: Server | undefined;
let client: Socket | undefined;
afterEach(() => {
  client?.destroy();
  server?.closeAllConnections();
  server?.close();
});

/** Send a long request as many clients do: the answer is looked at when everything has been sent. */
async function sendAll(read: (request: IncomingMessage) => Promise<unknown>): Promise<string> {
  const listener: RequestListener = (request, response) => {
    dropUnread(request, response);
    read(request).then(
      () => response.end(),
      () => response.writeHead(413, { "content-length": 0 }).end(),
    );
  };
  server = createServer({ requestTimeout: 0 }, listener).listen(0, "127.0.0.1");
  await once(server, "listening");
  const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
  client = socket;
  socket.write(`POST / HTTP/1.1\r\nhost: test\r\ncontent-length: ${LENGTH}\r\n\r\n`);
  await new Promise<void>((resolve, reject) => {
    socket.write(Buffer.alloc(LENGTH), (error) => (error ? reject(error) : resolve()));
  });
  const answer = (socket.read() as Buffer | null) ?? ((await once(socket, "data"))[0] as Buffer);
  return answer.toString("latin1").split("\r\n")[0] ?? "";
}

const refusal = "HTTP/1.1 413 Payload Too Large";

test("a client whose long request is refused in its middle can send it to its end", async () => {
  expect(await sendAll(async (request) => await collect(request, 1000, () => new Error()))).toBe(
    refusal,
  );
});

test("so can one whose request goes into a pipeline that fails", async () => {
  const full = new Writable({ write: (_bytes, _encoding, done) => done(new Error("no space")) });
  expect(await sendAll(async (request) => await pipeline(request, full))).toBe(refusal);
});

test("so can one whose request nobody goes on reading", async () => {
  const stuck = new Writable({ write: () => undefined });
  const begun = async (request: IncomingMessage): Promise<void> => {
    request.pipe(stuck);
    await once(request, "pause");
    throw new Error("enough");
  };
  expect(await sendAll(begun)).toBe(refusal);
});

test("a connection that goes on and on is listened to once", async () => {
  let listeners = 0;
  const head = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n";
  server = createServer((request, response) => {
    dropUnread(request, response);
    response.end();
    listeners = request.socket.listenerCount("close");
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
  client = socket;
  const counts: number[] = [];
  for (let i = 0; i < 4; i += 1) {
    socket.write(head);
    await once(socket, "data");
    counts.push(listeners);
    socket.write(Buffer.alloc(5));
  }
  expect(counts[3]).toBe(counts[1]);
});

test("a stream of HTTP/2 can be sent to its end as well, and one without an end is ended", async () => {
  const side = http2.createServer((request, response) => {
    dropUnread(request as unknown as IncomingMessage, response as unknown as ServerResponse);
    request.once("data", () => {
      request.pause();
      response.end();
    });
  });
  side.listen(0, "127.0.0.1");
  await once(side, "listening");
  const session = http2.connect(`http://127.0.0.1:${(side.address() as AddressInfo).port}`);
  try {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const stream = session.request({ ":method": "POST" });
    stream.resume();
    stream.write("on and ");
    await once(stream, "end");
    await new Promise((resolve) => stream.write(Buffer.alloc(1 << 20), resolve));
    vi.advanceTimersByTime(60_000);
    await once(stream, "close");
  } finally {
    vi.useRealTimers();
    session.destroy();
    side.close();
  }
});
