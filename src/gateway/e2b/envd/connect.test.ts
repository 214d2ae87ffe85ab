import { EventEmitter, once } from "node:events";
import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import * as fc from "fast-check";
import { expect, onTestFinished, test, vi } from "vitest";
import { E2bError } from "../errors.ts";
import { ReplyStream, parseObject, readBody, requestMessages } from "./connect.ts";
import { DeadSandbox } from "./dead-sandbox.ts";

/** A request with a body that comes in pieces. */
function request(pieces: readonly Uint8Array[]): IncomingMessage {
  return Readable.from(pieces.map((piece) => Buffer.from(piece))) as unknown as IncomingMessage;
}

/** Bytes in pieces of any size. */
function cut(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const pieces: Buffer[] = [];
  let at = 0;
  for (let i = 0; at < bytes.length; i += 1) {
    const size = sizes[i % sizes.length] ?? 1;
    pieces.push(bytes.subarray(at, at + size));
    at += size;
  }
  return pieces;
}

function frame(value: object): Buffer {
  const body = Buffer.from(JSON.stringify(value));
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

async function messages(pieces: readonly Uint8Array[]): Promise<object[]> {
  const all: object[] = [];
  for await (const message of requestMessages(request(pieces))) all.push(message);
  return all;
}

const sizes = fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 5 });

test("messages come whole, in whatever pieces their bytes do", async () => {
  const values = fc.array(fc.dictionary(fc.string(), fc.jsonValue()), { maxLength: 5 });
  await fc.assert(
    fc.asyncProperty(values, sizes, async (wanted, pieces) => {
      const bytes = Buffer.concat(wanted.map(frame));
      expect(await messages(cut(bytes, pieces))).toEqual(
        JSON.parse(JSON.stringify(wanted)) as object[],
      );
    }),
  );
});

test("any other bytes are refused in the protocol's words, or are messages", async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 100 }), sizes, async (bytes, pieces) => {
      try {
        await messages(cut(Buffer.from(bytes), pieces));
      } catch (error) {
        expect(error).toBeInstanceOf(E2bError);
      }
    }),
  );
});

test("a message that says that it is huge is refused before its bytes have come", async () => {
  const never = Readable.from(
    (async function* bytes() {
      yield Buffer.from([0, 0xff, 0xff, 0xff, 0xff]);
      await new Promise(() => undefined);
    })(),
  );
  const all = requestMessages(never as unknown as IncomingMessage);
  await expect(all.next()).rejects.toMatchObject({ code: "resource_exhausted" });
});

test("bodies are bounded, and are objects or refused", async () => {
  await expect(readBody(request([Buffer.alloc(11)]), 10)).rejects.toMatchObject({ status: 413 });
  expect(parseObject(Buffer.alloc(0))).toEqual({});
  fc.assert(
    fc.property(
      fc.oneof(fc.string(), fc.json(), fc.constantFrom("[]", "null", "1", "\u0000{")),
      (text) => {
        try {
          expect(typeof parseObject(Buffer.from(text))).toBe("object");
        } catch (error) {
          expect(error).toMatchObject({ code: "invalid_argument" });
        }
      },
    ),
  );
});

test("a sandbox that goes before anything was told is answered as gone; after that the connection is cut", async () => {
  const server = createServer((incoming, response) => {
    const replies = new ReplyStream(incoming, response, {});
    void (async () => {
      if (incoming.url === "/late") await replies.send({ event: "start" });
      if (!replies.cut()) new DeadSandbox("vm-1").send(response);
    })();
  }).listen(0, "127.0.0.1");
  onTestFinished(() => void server.close());
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const early = await fetch(`http://127.0.0.1:${port}/early`);
  expect([early.status, await early.json()]).toMatchObject([502, { sandboxId: "vm-1" }]);
  await expect(
    fetch(`http://127.0.0.1:${port}/late`).then(async (late) => await late.text()),
  ).rejects.toThrow();
});

test("signs of life come no faster than once a second, and none is kept for who does not read", async () => {
  const sent: number[] = [];
  for (const needsDrain of [false, true]) {
    vi.useFakeTimers();
    const response = Object.assign(new EventEmitter(), {
      headersSent: true,
      destroyed: false,
      writableNeedDrain: needsDrain,
      write: vi.fn<() => boolean>(() => true),
      end: () => undefined,
    });
    const headers = { "keepalive-ping-interval": "0.0001" };
    const replies = new ReplyStream(
      { headers } as unknown as IncomingMessage,
      response as unknown as ServerResponse,
      { keepalive: {} },
    );
    vi.advanceTimersByTime(5_000);
    sent.push(response.write.mock.calls.length);
    replies.end();
    vi.useRealTimers();
  }
  expect(sent).toEqual([5, 0]);
});
