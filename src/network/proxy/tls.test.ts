import { connect } from "node:tls";
import { createServer, type AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { readHello } from "./tls.ts";

/** The first bytes that Node's own TLS sends for a server name. */
async function helloFor(servername: string | undefined): Promise<Buffer> {
  return new Promise((resolve) => {
    const server = createServer((socket) => {
      socket.once("data", (data) => {
        resolve(data);
        socket.destroy();
        server.close();
      });
      socket.on("error", () => undefined); // the client is cut off on purpose
    });
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      const named = servername === undefined ? {} : { servername };
      const client = connect({ port, host: "127.0.0.1", rejectUnauthorized: false, ...named });
      client.on("error", () => undefined); // the server ends the connection
    });
  });
}

test("reads the name of a real hello, whole and byte by byte", async () => {
  const hello = await helloFor("www.Example.com");
  expect(readHello(hello)).toEqual({ kind: "name", name: "www.Example.com" });
  for (let length = 0; length < hello.length; length += 1) {
    expect(readHello(hello.subarray(0, length))).toEqual({ kind: "more" });
  }
});

test("a hello in several records is put together", async () => {
  const hello = await helloFor("a.example");
  const body = hello.subarray(5);
  const record = (part: Buffer): Buffer =>
    Buffer.concat([Buffer.from([22, 3, 1, part.length >> 8, part.length & 255]), part]);
  const pieces = [body.subarray(0, 1), body.subarray(1, 30), body.subarray(30)].map(record);
  expect(readHello(Buffer.concat(pieces))).toEqual({ kind: "name", name: "a.example" });
});

test("no name, other protocols, damage", async () => {
  expect(readHello(await helloFor(undefined))).toEqual({ kind: "refused", why: "no-name" });
  expect(readHello(Buffer.from("GET / HTTP/1.1\r\n"))).toEqual({ kind: "refused", why: "not-tls" });
  expect(readHello(Buffer.from([22, 9]))).toEqual({ kind: "refused", why: "not-tls" });
  const hello = await helloFor("a.example");
  // A handshake message that is no ClientHello.
  expect(
    readHello(Buffer.concat([hello.subarray(0, 5), Buffer.from([2]), hello.subarray(6)])),
  ).toEqual({
    kind: "refused",
    why: "malformed",
  });
  // One that claims to be larger than any.
  expect(readHello(Buffer.from([22, 3, 1, 0, 4, 1, 255, 0, 0]))).toEqual({
    kind: "refused",
    why: "malformed",
  });
});

test("a name with odd bytes or an encrypted hello is refused", async () => {
  const hello = await helloFor("aaaa.example");
  const at = hello.indexOf("aaaa.example");
  for (const odd of ["\0", "/", " ", "é"]) {
    const copy = Buffer.from(hello);
    copy.write(odd, at + 1, "latin1");
    expect(readHello(copy)).toEqual({ kind: "refused", why: "malformed" });
  }
  // Turn the type of an extension that is surely there (supported_versions, 43) into ECH's.
  const versions = hello.indexOf(Buffer.from([0, 43, 0]), 60);
  const copy = Buffer.from(hello);
  copy.writeUInt16BE(0xfe0d, versions);
  expect(["encrypted-hello"]).toContain((readHello(copy) as { why: string }).why);
});

test("every damaged hello is judged without an exception", async () => {
  const hello = await helloFor("a.example");
  for (let at = 0; at < hello.length; at += 1) {
    for (const value of [0, 1, 127, 255]) {
      const copy = Buffer.from(hello);
      copy[at] = value;
      const result = readHello(copy);
      // Damage may change the name's own letters; it never makes another name out of nothing.
      if (result.kind === "name") expect(result.name.length).toBe("a.example".length);
    }
  }
});
