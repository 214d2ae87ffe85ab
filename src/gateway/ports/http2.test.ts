/** HTTP/2 through a gateway's server: what of it reaches a port, and what is refused. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect, createServer } from "node:http2";
import type { ClientHttp2Session, Http2Server, IncomingHttpHeaders } from "node:http2";
import { connect as tcpConnect, createServer as createTcpServer } from "node:net";
import type { AddressInfo, Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as tlsConnect } from "node:tls";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Hosts } from "../http/hosts.ts";
import { listen } from "../http/server.ts";
import type { Face, ListeningGateway } from "../http/server.ts";
import { guestPortOf } from "./access.ts";
import { needsHttp2, proxyHttp2 } from "./http2.ts";

const hosts = new Hosts(["vms.example"]);
let scratch: string;
let guest: Http2Server;
let plain: ListeningGateway;
let secure: ListeningGateway;
let dialled = 0;
/** Speaks frames of its own making: what it answers next, headers and trailers. */
let liar: Server;
let lies: [Record<string, string>, Record<string, string>];

/** A frame of HTTP/2. */
function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** Headers as literals without an index (RFC 7541, section 6.2.2). */
function block(fields: Record<string, string>): Buffer {
  const text = (word: string): Buffer => Buffer.from(`${String.fromCharCode(word.length)}${word}`);
  return Buffer.concat(
    Object.entries(fields).flatMap(([name, value]) => [Buffer.of(0), text(name), text(value)]),
  );
}

/** Answers whatever comes on a stream. */
const lie = createTcpServer((socket) => {
  socket.on("error", () => undefined);
  socket.write(frame(4, 0, 0, Buffer.alloc(0)));
  let held = Buffer.alloc(0);
  let at = 24;
  socket.on("data", (bytes: Buffer) => {
    held = Buffer.concat([held, bytes]);
    for (; held.length >= at + 9; at += 9 + held.readUIntBE(at, 3)) {
      if (held.readUInt8(at + 3) !== 1) continue;
      const [first, after] = lies;
      const stream = held.readUInt32BE(at + 5);
      const more = Object.keys(after).length > 0;
      socket.write(frame(1, more ? 4 : 5, stream, block(first)));
      if (more) socket.write(frame(1, 5, stream, block(after)));
    }
  });
});

/** A face like that of ports, whose guests are one server of this test. */
const ports: Face = {
  name: "ports",
  claims: (request) => guestPortOf(request, hosts) !== undefined,
  speaksHttp2: (request) => guestPortOf(request, hosts) !== undefined,
  handle: async (request, response) => {
    if (!needsHttp2(request)) {
      response.end(`by ${request.httpVersion}`);
      return;
    }
    await proxyHttp2(request, response, {
      name: `vm:${request.url === "/lies"}`,
      headers: { "content-type": request.headers["content-type"], "x-kept": "1" },
      authority: request.headers.host ?? "",
      dial: async () => {
        dialled += 1;
        const { port } = (request.url === "/lies" ? liar : guest).address() as AddressInfo;
        return await Promise.resolve(tcpConnect(port, "127.0.0.1"));
      },
    });
  },
};
const rest: Face = {
  name: "rest",
  claims: () => true,
  handle: async (_request, response) => void (await Promise.resolve(response.end("rest"))),
};

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), "vmsan-h2-"));
  guest = createServer();
  guest.on("stream", (stream, headers) => {
    if (headers[":path"] === "/bare") {
      stream.respond({ ":status": 200, "grpc-status": "12" }, { endStream: true });
      return;
    }
    if (headers[":path"] === "/reset") {
      stream.close(8);
      return;
    }
    if (headers[":path"] === "/early") {
      stream.once("data", () => {
        stream.respond({ ":status": 413 });
        stream.end("enough");
        stream.close(0);
      });
      return;
    }
    stream.respond(
      { ":status": 200, "content-type": "application/grpc" },
      { waitForTrailers: true },
    );
    stream.on("wantTrailers", () => {
      stream.sendTrailers({ "grpc-status": "0", "x-authority": headers[":authority"] ?? "" });
    });
    // Both ways at once: what comes goes back before the request has ended.
    stream.pipe(stream);
  });
  guest.on("sessionError", () => undefined);
  await new Promise<void>((resolve) => guest.listen(0, "127.0.0.1", resolve));
  liar = lie.listen(0, "127.0.0.1");
  const tls = { cert: join(scratch, "cert.pem"), key: join(scratch, "key.pem") };
  const words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=vms.example -keyout";
  execFileSync("openssl", [...words.split(" "), tls.key, "-out", tls.cert], { stdio: "ignore" });
  const parts = {
    address: { host: "127.0.0.1", port: 0 },
    hosts,
    faces: [ports, rest],
    log: { info: () => undefined, error: () => undefined },
    headersMs: 1_000,
  };
  plain = await listen(parts);
  secure = await listen({ ...parts, tls });
});

afterAll(async () => {
  await Promise.all([plain?.close(), secure?.close()]);
  guest?.close();
  lie.close();
  rmSync(scratch, { recursive: true, force: true });
});

/** A client's connection without TLS, for the length of a test. */
async function withClient<T>(work: (client: ClientHttp2Session) => Promise<T>): Promise<T> {
  const client = connect(plain.url);
  client.on("error", () => undefined);
  try {
    return await work(client);
  } finally {
    client.destroy();
  }
}

/** What came back for one request. */
interface Answer {
  headers: IncomingHttpHeaders;
  trailers: IncomingHttpHeaders;
  body: string;
  code: number;
}

async function ask(
  client: ClientHttp2Session,
  headers: Record<string, string>,
  body: string[] = [],
): Promise<Answer> {
  const stream = client.request({ ":method": "POST", ":path": "/", ...headers });
  const answer: Answer = { headers: {}, trailers: {}, body: "", code: 0 };
  stream.on("response", (given) => (answer.headers = given));
  stream.on("trailers", (given) => (answer.trailers = given));
  stream.on("error", () => undefined);
  stream.setEncoding("utf8").on("data", (text: string) => (answer.body += text));
  for (const part of body) {
    stream.write(part);
    // The next only when this one has come back.
    while (!answer.body.endsWith(part) && !stream.destroyed)
      await new Promise((resolve) => stream.once("data", resolve).once("close", resolve));
  }
  stream.end();
  await new Promise((resolve) => stream.once("close", resolve));
  answer.code = stream.rstCode;
  return answer;
}

const grpc = { ":authority": "80-vm-1.vms.example", "content-type": "application/grpc" };

describe("by prior knowledge", () => {
  test("a port that answers early holds its client's request up no more", async () => {
    await withClient(async (client) => {
      const stream = client.request({ ":method": "POST", ...grpc, ":path": "/early" });
      let said = "";
      stream.setEncoding("utf8").on("data", (text: string) => (said += text));
      const closed = new Promise((resolve) => stream.once("close", resolve));
      // More than the windows on the way have room for, all of it before the answer is looked at.
      for (let sent = 0; sent < 512; sent += 1)
        await new Promise<void>((resolve) => stream.write(Buffer.alloc(64 << 10), () => resolve()));
      stream.end();
      await closed;
      expect(said).toBe("enough");
    });
  });

  test("gRPC: both ways at once, trailers, and one connection into the guest for all", async () => {
    await withClient(async (client) => {
      dialled = 0;
      const answer = await ask(client, grpc, ["one", "two", "three"]);
      expect(answer.body).toBe("onetwothree");
      expect(answer.headers[":status"]).toBe(200);
      expect(answer.trailers).toMatchObject({
        "grpc-status": "0",
        "x-authority": "80-vm-1.vms.example",
      });
      const many = await Promise.all(
        Array.from({ length: 50 }, async (_, i) => await ask(client, grpc, [`call ${i}`])),
      );
      expect(many.map(({ body }) => body)).toEqual(many.map((_, i) => `call ${i}`));
      expect(dialled).toBe(1);
    });
  });

  test("an answer of trailers alone, and a reset, with their codes", async () => {
    await withClient(async (client) => {
      const bare = await ask(client, { ...grpc, ":path": "/bare" });
      expect([bare.headers["grpc-status"], bare.code]).toEqual(["12", 0]);
      const reset = await ask(client, { ...grpc, ":path": "/reset" });
      expect(Number(reset.headers[":status"]) === 502 || reset.code !== 0).toBe(true);
      // The connection goes on.
      expect((await ask(client, grpc, ["x"])).body).toBe("x");
    });
  });

  test("other requests are the face's as well; other names, of whatever kind, are not", async () => {
    await withClient(async (client) => {
      const other = await ask(client, { ":authority": grpc[":authority"] });
      expect(other.body).toBe("by 2.0");
      for (const headers of [
        { ":authority": "vms.example" },
        { ":authority": "127.0.0.1" },
        { ":authority": "evil.example" },
        { ":authority": grpc[":authority"], host: "81-vm-1.vms.example" },
        { ":authority": "evil.example", host: grpc[":authority"] },
      ])
        expect((await ask(client, headers)).headers[":status"], JSON.stringify(headers)).toBe(421);
      // By headers instead of a name: where the caller's address is an address.
      const named = { ":authority": "127.0.0.1", "vmsan-vm": "vm-1", "vmsan-port": "80" };
      expect((await ask(client, named)).body).toBe("by 2.0");
    });
  });

  test("the same port speaks HTTP/1.1, also to methods that begin like HTTP/2, byte by byte", async () => {
    const socket = tcpConnect(plain.port, "127.0.0.1");
    for (const byte of "PROPFIND / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n") {
      socket.write(byte);
      await new Promise((resolve) => setImmediate(resolve));
    }
    let seen = "";
    for await (const chunk of socket) seen += String(chunk);
    expect(seen).toContain("HTTP/1.1 200 OK");
  });

  test("a guest's answer that is none ends its own call alone", async () => {
    await withClient(async (client) => {
      for (const fields of [
        { ":status": "999" },
        { ":status": "099" },
        { ":status": "200", "http2-settings": "x" },
        { ":status": "200", "proxy-authenticate": "x" },
      ]) {
        for (const after of [{}, { "http2-settings": "x" }]) {
          lies = [fields, after];
          await ask(client, { ...grpc, ":path": "/lies" });
        }
      }
      expect((await ask(client, grpc, ["still here"])).body).toBe("still here");
    });
  });

  test("a preface that does not come to its end is given up", async () => {
    const socket = tcpConnect(plain.port, "127.0.0.1");
    socket.on("error", () => undefined);
    socket.write("PR");
    socket.resume();
    await new Promise((resolve) => socket.once("close", resolve));
  });
});

describe("by TLS", () => {
  const negotiated = async (servername: string, ALPNProtocols: string[]): Promise<string> => {
    const ca = readFileSync(join(scratch, "cert.pem"));
    return await new Promise((resolve, reject) => {
      const socket = tlsConnect(
        {
          port: secure.port,
          host: "127.0.0.1",
          servername,
          ALPNProtocols,
          ca,
          checkServerIdentity: () => undefined,
        },
        () => {
          resolve(String(socket.alpnProtocol));
          socket.destroy();
        },
      );
      socket.once("error", reject);
    });
  };

  test("HTTP/2 is offered for ports of VMs alone", async () => {
    const both = ["h2", "http/1.1"];
    expect(await negotiated("80-vm-1.vms.example", both)).toBe("h2");
    expect(await negotiated("80-vm-1.vms.example", ["http/1.1"])).toBe("http/1.1");
    expect(await negotiated("vms.example", both)).toBe("http/1.1");
    await expect(negotiated("vms.example", ["h2"])).rejects.toThrow();
  });

  test("and spoken", async () => {
    const ca = readFileSync(join(scratch, "cert.pem"));
    const client = connect(`https://127.0.0.1:${secure.port}`, {
      ca,
      servername: "80-vm-1.vms.example",
      checkServerIdentity: () => undefined,
    });
    expect((await ask(client, grpc, ["over TLS"])).body).toBe("over TLS");
    client.destroy();
  });
});
