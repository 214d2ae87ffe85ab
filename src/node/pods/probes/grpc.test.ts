import { once } from "node:events";
import { createServer } from "node:http2";
import type { Http2Server, IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { createServer as createTcp, connect } from "node:net";
import type { AddressInfo, Server } from "node:net";
import { afterEach, expect, test } from "vitest";
import type { Vm } from "../../../client/vm.ts";
import { Message, encode } from "../../../util/packing/protobuf.ts";
import { lookAt } from "./probe.ts";

let server: Http2Server | Server;
afterEach(() => void server.close());

/** A guest whose ports are this host's. */
const vm = {
  dial: async ({ port }: { port: number }) => {
    const socket = connect(port, "127.0.0.1");
    await once(socket, "connect");
    return socket;
  },
} as unknown as Vm;

const framed = (message: Buffer, head = 0): Buffer => {
  const before = Buffer.from([head, 0, 0, 0, 0]);
  before.writeUInt32BE(message.length, 1);
  return Buffer.concat([before, message]);
};

/** What a probe says of whoever listens now. */
async function look(service?: string, timeoutSeconds = 60): Promise<string | undefined> {
  const { port } = server.address() as AddressInfo;
  const container = { name: "main", image: "a" };
  const probe = { grpc: { port, service }, timeoutSeconds };
  return await lookAt(vm, container, probe, new AbortController().signal);
}

/** A server that answers with these bytes, and a status. */
async function serving(
  answer: (service: string) => { bytes?: Buffer; status?: string; message?: string },
): Promise<IncomingHttpHeaders[]> {
  const asked: IncomingHttpHeaders[] = [];
  const own = createServer();
  own.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
    asked.push(headers);
    stream.once("data", (request: Buffer) => {
      const { bytes, status = "0", message } = answer(new Message(request.subarray(5)).text(1));
      const end = { "grpc-status": status, ...(message ? { "grpc-message": message } : {}) };
      if (bytes === undefined) {
        stream.respond({ ":status": 200, ...end }, { endStream: true });
        return;
      }
      stream.respond({ ":status": 200 }, { waitForTrailers: true });
      stream.once("wantTrailers", () => stream.sendTrailers(end));
      stream.end(bytes);
    });
    stream.on("error", () => undefined);
  });
  server = own.listen(0, "127.0.0.1");
  await once(server, "listening");
  return asked;
}

test("a server of gRPC is well when it says that it serves", async () => {
  const states: Record<string, number> = { "": 1, down: 2, odd: 7 };
  const asked = await serving((service) => ({ bytes: framed(encode([1, states[service]])) }));
  expect(await look()).toBeUndefined();
  expect(await look("down")).toBe("it says NOT_SERVING");
  expect(await look("odd")).toBe("it says 7");
  expect(await look("none")).toBe("it says UNKNOWN");
  expect(asked[0]).toMatchObject({
    ":method": "POST",
    ":path": "/grpc.health.v1.Health/Check",
    "content-type": "application/grpc",
    te: "trailers",
  });
});

test("a server that refuses, or says what is no answer, is not well", async () => {
  const answers: Record<string, { bytes?: Buffer; status?: string; message?: string }> = {
    none: { status: "5", message: "unknown service" },
    late: { bytes: framed(encode([1, 1])), status: "13" },
    squeezed: { bytes: framed(encode([1, 1]), 1) },
    half: { bytes: framed(encode([1, 1])).subarray(0, 6) },
    nothing: { bytes: Buffer.from([]) },
    noise: { bytes: framed(Buffer.from([0x0b])) },
    endless: { bytes: Buffer.alloc(100_000) },
  };
  await serving((service) => answers[service] ?? {});
  const said: unknown[] = [];
  for (const service of Object.keys(answers)) said.push(await look(service));
  const none = "its answer is no message of gRPC";
  expect(said).toEqual([
    "gRPC status 5 unknown service",
    "gRPC status 13",
    none,
    none,
    none,
    none,
    "its answer is too long",
  ]);
});

test("what speaks no HTTP/2, or not at all, is not well", async () => {
  server = createTcp((socket) => {
    socket.on("error", () => undefined);
    socket.end("HTTP/1.1 400 Bad Request\r\n\r\n");
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  expect(await look()).toMatch(/./);
  server.close();
  server = createTcp((socket) => void socket.on("error", () => undefined)).listen(0, "127.0.0.1");
  await once(server, "listening");
  expect(await look("", 1)).toBe("no answer within 1s");
});
