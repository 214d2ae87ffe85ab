import { connect } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Hosts } from "./hosts.ts";
import { listen } from "./server.ts";
import type { ListeningGateway } from "./server.ts";

let gateway: ListeningGateway;
/** What reached a face: method and path. */
const reached: string[] = [];

beforeAll(async () => {
  gateway = await listen({
    address: { host: "127.0.0.1", port: 0 },
    hosts: new Hosts(["vms.example:8443"]),
    headersMs: 1_000,
    log: { info: () => undefined, error: () => undefined },
    faces: [
      {
        name: "echo",
        claims: () => true,
        handle: async (request, response) => {
          reached.push(`${request.method} ${request.url}`);
          let size = 0;
          for await (const chunk of request as AsyncIterable<Buffer>) size += chunk.length;
          response.end(String(size));
        },
      },
    ],
  });
});

afterAll(async () => await gateway?.close());

/** Bytes as they are; what comes back until the other end closes. @param end half-close behind them */
async function raw(bytes: string, end = true): Promise<string> {
  const socket = connect(gateway.port, "127.0.0.1");
  socket.on("error", () => undefined);
  if (end) socket.end(bytes, "latin1");
  else socket.write(bytes, "latin1");
  let seen = "";
  try {
    for await (const chunk of socket) seen += String(chunk);
  } catch {
    // A reset is an end as well.
  }
  return seen;
}

/** The statuses of all answers in what came back. */
function statuses(seen: string): number[] {
  return [...seen.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));
}

const close = "connection: close\r\n\r\n";

describe("hosts", () => {
  test.each([
    ["127.0.0.1", 200],
    ["127.0.0.1:9", 200],
    ["[::1]:7300", 200],
    ["localhost", 200],
    ["LOCALHOST:1", 200],
    ["vms.example", 200],
    ["8080-vm-1.vms.example:8443", 200],
    ["evil.example", 421],
    ["vms.example.evil.example", 421],
    ["evilvms.example", 421],
    ["localhost.evil.example", 421],
    ["127.0.0.1.evil.example", 421],
    ["localhost@evil.example", 421],
    ["localhost/evil", 421],
    ["", 421],
    ["a".repeat(5_000), 421],
  ])("%s", async (host, status) => {
    const seen = await raw(`GET / HTTP/1.1\r\nhost: ${host}\r\n${close}`);
    expect(statuses(seen)).toEqual([status]);
  });
});

describe("requests that two servers could read in two ways", () => {
  const head = "POST /one HTTP/1.1\r\nhost: localhost\r\n";
  const hidden = "GET /hidden HTTP/1.1\r\nhost: localhost\r\n\r\n";
  test.each([
    [
      "both lengths",
      `${head}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n${hidden}`,
    ],
    [
      "chunked before a length",
      `${head}transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n${hidden}`,
    ],
    ["two lengths", `${head}content-length: 0\r\ncontent-length: 44\r\n\r\n${hidden}`],
    ["a length that is none", `${head}content-length: +5\r\n\r\nabcde${hidden}`],
    ["a list of lengths", `${head}content-length: 5, 5\r\n\r\nabcde${hidden}`],
    [
      "a coding that only looks like chunked",
      `${head}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n${hidden}`,
    ],
    ["chunked twice", `${head}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n${hidden}`],
    ["a space before the colon", `${head}transfer-encoding : chunked\r\n\r\n0\r\n\r\n${hidden}`],
    ["a folded header", `${head}x: a\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n${hidden}`],
    ["a header without a name", `${head}: x\r\n\r\n${hidden}`],
    ["a NUL in a header", `${head}x: a\u0000b\r\n\r\n${hidden}`],
    ["bare line feeds", `${head.replaceAll("\r\n", "\n")}content-length: 0\n\n${hidden}`],
    [
      "a chunk size that is none",
      `${head}transfer-encoding: chunked\r\n\r\n5;\nabcde\r\n0\r\n\r\n${hidden}`,
    ],
    [
      "a chunk longer than said",
      `${head}transfer-encoding: chunked\r\n\r\n3\r\nabcde\r\n0\r\n\r\n${hidden}`,
    ],
    ["no host", `POST /hidden HTTP/1.1\r\n${close}`],
    ["two hosts", `POST /hidden HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n${close}`],
    ["another version", `POST /one HTTP/1.9\r\nhost: localhost\r\n\r\n${hidden}`],
    ["no protocol at all", "\u0016\u0003\u0001\u0002\u0000"],
    ["headers of 70 kB", `${head}x: ${"a".repeat(70_000)}\r\n\r\n${hidden}`],
    ["10,000 headers", `${head}${"x: y\r\n".repeat(10_000)}\r\n${hidden}`],
  ])("%s", async (_what, bytes) => {
    reached.length = 0;
    const answers = statuses(await raw(bytes));
    // At most one answer, and what was hidden in a body is never taken for a request.
    expect(answers.length).toBeLessThanOrEqual(1);
    for (const status of answers) expect([400, 413, 421, 431, 501]).toContain(status);
    expect(reached.filter((one) => one.includes("hidden"))).toEqual([]);
  });
});

describe("slow clients", () => {
  test("headers that do not come to an end are given up", async () => {
    expect(statuses(await raw("GET / HTTP/1.1\r\nhost: localhost\r\nx: ", false))).toEqual([408]);
    expect(await raw("G", false)).toMatch(/^(HTTP\/1\.1 408|$)/);
  });

  test("a refused switch of protocols is closed, also by a client that leaves its end open", async () => {
    const socket = connect({ port: gateway.port, host: "127.0.0.1", allowHalfOpen: true });
    const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
    socket.on("error", () => undefined);
    let seen = "";
    socket.on("data", (bytes: Buffer) => (seen += String(bytes)));
    socket.write(
      "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    // A reset is told to who writes.
    const writes = setInterval(() => socket.write("x"), 100);
    await closed;
    clearInterval(writes);
    expect(statuses(seen)).toEqual([404]);
  });

  test("500 of them take little memory, and others are served meanwhile", async () => {
    const before = process.memoryUsage().rss;
    const slow = Array.from(
      { length: 500 },
      async () => await raw("GET /slow HTTP/1.1\r\nx: ", false),
    );
    const fast = async (): Promise<number[]> =>
      statuses(await raw(`GET /fast HTTP/1.1\r\nhost: localhost\r\n${close}`));
    await expect.poll(fast).toEqual([200]);
    await Promise.all(slow);
    expect(process.memoryUsage().rss - before).toBeLessThan(100 << 20);
  });
});
