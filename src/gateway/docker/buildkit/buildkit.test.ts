/** A client as buildx is one: calls on one connection, files and secrets served on another. */
import { once } from "node:events";
import { readdir } from "node:fs/promises";
import { connect as http2, performServerHandshake } from "node:http2";
import type { ClientHttp2Session, IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { connect, createServer } from "node:net";
import { gzipSync } from "node:zlib";
import type { AddressInfo, Socket } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { BuildOptions } from "../../../client/builds/builds.ts";
import type { WorkOptions } from "../../../client/daemon.ts";
import { readArchive } from "../../../agent/archive/read.ts";
import { temporary } from "../../../../test/fixtures/ladder.ts";
import { tarOf } from "../../../../test/registry/fixture.ts";
import { secretsIn } from "./build.ts";
import { BuildKit } from "./buildkit.ts";
import { ignorePatterns } from "./files.ts";
import { messagesOf } from "./grpc.ts";
import { Message, encode, mapFields } from "../../../util/packing/protobuf.ts";

const FILES: Record<string, { mode: number; content?: string; link?: string }> = {
  Dockerfile: {
    mode: 0o644,
    content: "FROM x\nRUN --mount=type=secret,id=tok --mount=type=secret,id=none true\n",
  },
  ".dockerignore": { mode: 0o644, content: "# no\nskip\n" },
  "bin/run": { mode: 0o755 + 2 ** 23, content: "#!/bin/sh\n" },
  "bin/same": { mode: 0o755, link: "bin/run" },
  empty: { mode: 0o600, content: "" },
  link: { mode: 2 ** 27 + 0o777, link: "../outside" },
  ü: { mode: 0o644, content: "x".repeat(200_000) },
};

const CONTROL = "/moby.buildkit.v1.Control";
const BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge";

/** Both ends of a connection. */
async function pair(): Promise<[Socket, Socket]> {
  const server = createServer({ allowHalfOpen: true }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const accepted = once(server, "connection") as Promise<[Socket]>;
  const near = connect((server.address() as AddressInfo).port, "127.0.0.1");
  const [far] = await accepted;
  server.close();
  return [near, far];
}

const framed = (message: Buffer): Buffer => {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
};

const place = temporary();
let kit: BuildKit;
let client: ClientHttp2Session;
let asked: { wishes: IncomingHttpHeaders[] };
let built: { options: BuildOptions; names: string[]; secret: string } | undefined;
/** Images that were made and removed on the way. */
let passing: { made: string[]; removed: string[] };
let failing = "";
let uploaded: Buffer = Buffer.alloc(0);

/** Serve files as buildx does; what a wish leaves out is not sent. */
async function serveFiles(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Promise<void> {
  asked.wishes.push(headers);
  stream.respond({ ":status": 200 }, { waitForTrailers: true });
  stream.once("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  const include = headers["include-patterns"];
  const wanted = typeof include === "string" ? include.split(", ") : undefined;
  const paths = Object.keys(FILES).filter((path) => wanted?.includes(path) ?? true);
  const send = (...fields: Parameters<typeof encode>): void =>
    void stream.write(framed(encode(...fields)));
  for (const path of paths) {
    const { mode, content = "", link } = FILES[path] ?? { mode: 0 };
    send([2, encode([1, path], [2, mode], [5, content.length], [6, 5n], [7, link])]);
  }
  send([1, 0]);
  for await (const bytes of messagesOf(stream as AsyncIterable<Buffer>)) {
    const packet = new Message(bytes);
    if (packet.number(1) === 3n) {
      send([1, 3]);
      stream.end();
      return;
    }
    const { content = "" } = FILES[paths[Number(packet.number(3))] ?? ""] ?? {};
    for (let at = 0; at < content.length; at += 60_000) {
      send([1, 2], [3, packet.number(3)], [4, content.slice(at, at + 60_000)]);
    }
    send([1, 2], [3, packet.number(3)]);
  }
}

async function serveSecret(stream: ServerHttp2Stream): Promise<void> {
  const { value } = await messagesOf(stream as AsyncIterable<Buffer>).next();
  const there = new Message(value as Buffer).text(1) === "tok";
  stream.respond({ ":status": 200 }, { waitForTrailers: true });
  stream.once("wantTrailers", () => stream.sendTrailers({ "grpc-status": there ? "0" : "5" }));
  if (there) stream.write(framed(encode([1, "secret"])));
  stream.end();
}

/** Serve an archive in pieces, as buildx does with what it was given on its standard input. */
function serveUpload(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
  asked.wishes.push(headers);
  stream.respond({ ":status": 200 }, { waitForTrailers: true });
  stream.once("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  for (let at = 0; at < uploaded.length; at += 1000) {
    stream.write(framed(encode([1, uploaded.subarray(at, at + 1000)])));
  }
  stream.end();
}

beforeEach(async () => {
  asked = { wishes: [] };
  built = undefined;
  passing = { made: [], removed: [] };
  failing = "";
  const build = async (options: BuildOptions, { onProgress }: WorkOptions) => {
    const { open } = await import("node:fs/promises");
    const handle = await open(options.archive ?? "");
    const names: string[] = [];
    for await (const { entry, content } of readArchive(handle.createReadStream())) {
      let size = 0;
      for await (const { bytes } of content) size += bytes.length;
      names.push(`${entry.type} ${entry.name.toString()} ${entry.mode.toString(8)} ${size}`);
    }
    if (options.dockerfile === "FROM scratch\nCOPY . /\n") {
      passing.made.push(...(options.tags ?? []));
      return { configDigest: "sha256:def" };
    }
    built = { options, names, secret: String(options.secrets?.["tok"]) };
    const say = (message: string) => onProgress?.({ phase: "build", message });
    say("STEP 1/2: FROM x");
    say("out");
    if (failing !== "") throw new Error(failing);
    return { configDigest: "sha256:abc" };
  };
  const builder = {
    vmsan: {
      build,
      builds: {},
      images: { remove: async (name: string) => await Promise.resolve(passing.removed.push(name)) },
    },
    events: { emit: () => undefined },
    scratch: place.path,
  };
  kit = new BuildKit(builder as never);
  const [near, far] = await pair();
  void kit.serve(far);
  client = http2("http://x", { createConnection: () => near });
});
afterEach(async () => {
  client.destroy();
  await expect.poll(async () => await readdir(place.path)).toEqual([]);
});

async function call(
  path: string,
  message: Buffer,
  headers = {},
): Promise<{ messages: Message[]; status: string; said: string }> {
  const stream = client.request({ ":method": "POST", ":path": path, te: "trailers", ...headers });
  const trailers = once(stream, "trailers") as Promise<[IncomingHttpHeaders]>;
  stream.end(framed(message));
  const messages: Message[] = [];
  for await (const one of messagesOf(stream as AsyncIterable<Buffer>))
    messages.push(new Message(one));
  const [ended] = await trailers;
  return {
    messages,
    status: String(ended["grpc-status"]),
    said: decodeURIComponent(String(ended["grpc-message"] ?? "")),
  };
}

/** A session that serves files and secrets. */
async function session(id: string): Promise<Socket> {
  const [near, far] = await pair();
  const request = { headers: { "x-docker-expose-session-uuid": id } };
  void kit.session(request as never, async () => await Promise.resolve(far));
  performServerHandshake(near).on(
    "stream",
    (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
      stream.on("error", () => undefined);
      const path = headers[":path"] ?? "";
      if (path.endsWith("/Pull")) serveUpload(stream, headers);
      else void (path.endsWith("/GetSecret") ? serveSecret(stream) : serveFiles(stream, headers));
    },
  );
  return near;
}

const attributes = { filename: "Dockerfile", target: "last", "build-arg:A": "1", "label:l": "2" };

test("a build by the bridge: files, secrets and options arrive, progress and result come back", async () => {
  const near = await session("s1");
  const exporter = encode([1, "moby"], ...mapFields(2, { name: "one,two:2" }));
  const solved = call(`${CONTROL}/Solve`, encode([1, "ref"], [5, "s1"], [13, exporter]));
  const status = call(`${CONTROL}/Status`, encode([1, "ref"]));
  const about = { "buildkit-controlapi-buildid": "ref" };
  const { messages: pong } = await call(`${BRIDGE}/Ping`, Buffer.alloc(0), about);
  expect(pong[0]?.messages(1).map((one) => one.text(1))).toContain("solve.base");
  const request = encode([2, "dockerfile.v0"], ...mapFields(3, attributes));
  const { messages } = await call(`${BRIDGE}/Solve`, request, about);
  expect(messages[0]?.message(3).message(3).text(1)).toBe("sha256:abc");
  await call(`${BRIDGE}/Return`, encode([1, encode([3, encode([1, "x"])])]), about);
  expect((await solved).messages[0]?.map(1)).toEqual({
    "containerimage.config.digest": "sha256:abc",
    "containerimage.digest": "sha256:abc",
    "image.name": "one,two:2",
  });
  expect(built?.options).toMatchObject({
    tags: ["one", "two:2"],
    buildArgs: { A: "1" },
    labels: { l: "2" },
    target: "last",
  });
  expect([built?.secret, Object.keys(built?.options.secrets ?? {})]).toEqual(["secret", ["tok"]]);
  expect(built?.names).toEqual([
    "file Dockerfile 644 71",
    "file .dockerignore 644 10",
    "file bin/run 4755 10",
    "hardlink bin/same 755 0",
    "file empty 600 0",
    "symlink link 777 0",
    "file ü 644 200000",
  ]);
  expect(asked.wishes.at(-1)?.["exclude-patterns"]).toBe("skip");
  const names = (await status).messages.flatMap((one) =>
    one.messages(1).map((vertex) => vertex.text(3)),
  );
  expect(new Set(names)).toContain("[1/2] FROM x");
  const logs = (await status).messages.flatMap((one) => one.messages(3).map((log) => log.text(4)));
  expect(logs).toContain("out\n");
  near.destroy();
});

test("what fails says why, in the step and at the end", async () => {
  failing = "a step has failed";
  const near = await session("s2");
  const solved = call(
    `${CONTROL}/Solve`,
    encode([1, "r2"], [5, "s2"], [6, "dockerfile.v0"], ...mapFields(7, attributes)),
  );
  const { messages } = await call(`${CONTROL}/Status`, encode([1, "r2"]));
  expect(await solved).toMatchObject({
    status: "2",
    said: expect.stringContaining(failing) as string,
  });
  const errors = messages.flatMap((one) => one.messages(1).map((vertex) => vertex.text(7)));
  expect(errors.at(-1)).toContain(failing);
  near.destroy();
});

test("an archive that buildx was given is the context, and has the Dockerfile unless that is the client's", async () => {
  const near = await session("s4");
  uploaded = gzipSync(tarOf("sub/Dockerfile", Buffer.from("FROM x\n")));
  const solve = async (ref: string, more: Record<string, string>) =>
    await call(
      `${CONTROL}/Solve`,
      encode(
        [1, ref],
        [5, "s4"],
        [6, "dockerfile.v0"],
        ...mapFields(7, { context: "http://buildkit-session/abc", ...more }),
      ),
    );
  expect(await solve("u1", { filename: "sub/Dockerfile" })).toMatchObject({
    status: "0",
    said: "",
  });
  expect(asked.wishes.map((headers) => headers["urlpath"])).toEqual(["/abc"]);
  expect(built?.options.dockerfile).toBe("FROM x\n");
  expect(built?.names).toEqual(["file sub/Dockerfile 644 7"]);
  expect((await solve("u2", { dockerfilekey: "dockerfile" })).status).toBe("0");
  expect(built?.options.dockerfile).toContain("type=secret");
  expect(await solve("u3", {})).toMatchObject({
    said: expect.stringContaining("open Dockerfile: no such file") as string,
  });
  near.destroy();
});

test("further contexts: images by name, directories as images that go again, others refused", async () => {
  const near = await session("s5");
  const solve = async (ref: string, contexts: Record<string, string>) =>
    await call(
      `${CONTROL}/Solve`,
      encode(
        [1, ref],
        [5, "s5"],
        [6, "dockerfile.v0"],
        ...mapFields(7, { ...attributes, ...contexts }),
      ),
    );
  const contexts = { "context:base": "docker-image://alpine:3", "context:src": "local:src" };
  expect(await solve("c1", contexts)).toMatchObject({ status: "0", said: "" });
  const [made = ""] = passing.made;
  expect(made).toMatch(/^localhost\/build-context:[0-9a-f]{32}$/);
  expect(built?.options.contexts).toEqual({ base: "alpine:3", src: made });
  expect(passing.removed).toEqual([made]);
  expect(asked.wishes.at(-1)).toMatchObject({ "dir-name": "src", "exclude-patterns": "skip" });
  const others = { "context:a": "local:a", "context:b": "https://x/y.git" };
  expect(await solve("c2", others)).toMatchObject({
    said: expect.stringContaining("--build-context b is not possible") as string,
  });
  expect(passing.removed).toHaveLength(2);
  failing = "a step has failed";
  await solve("c3", contexts);
  expect(passing.removed.toSorted()).toEqual(passing.made.toSorted());
  near.destroy();
});

test("what builds here do not have is refused in words, and strangers are", async () => {
  const solve = async (...fields: Parameters<typeof encode>) =>
    await call(`${CONTROL}/Solve`, encode([1, `r${Math.random()}`], ...fields));
  const local = encode([1, "local"]);
  expect(await solve([13, local])).toMatchObject({
    status: "12",
    said: expect.stringContaining("type local") as string,
  });
  expect(await solve([6, "gateway.v0"])).toMatchObject({ status: "12" });
  const near = await session("s3");
  const git = mapFields(7, { context: "https://x/y.git" });
  expect(await solve([5, "s3"], [6, "dockerfile.v0"], ...git)).toMatchObject({
    status: "12",
    said: expect.stringContaining("y.git") as string,
  });
  expect(await call("/moby.buildkit.v1.Control/Session", Buffer.alloc(0))).toMatchObject({
    status: "12",
  });
  expect((await call(`${CONTROL}/Solve`, Buffer.from([0x0f]))).status).toBe("2");
  near.destroy();
});

test("ignore lists and secrets of Dockerfiles", () => {
  expect(ignorePatterns("\uFEFF# c\n\n /a/ \n!b\n./c\n.\n! /d\n")).toEqual(["a", "!b", "c", "!d"]);
  const text =
    "RUN --mount=type=secret,id=a --mount=type=secret,target=/x/b cmd\nRUN --mount=type=cache,id=c x\nRUN --mount=id=d,type=secret,required x";
  expect(secretsIn(text)).toEqual(["a", "b", "d"]);
});

test("messages: what is cut off or no message is refused", () => {
  for (const bytes of [
    [0x08],
    [0x0a, 5, 1],
    [0x0f],
    [0x09, 1],
    [8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
  ]) {
    expect(() => new Message(Buffer.from(bytes))).toThrow(RangeError);
  }
  const message = new Message(encode([1, -1n], [2, "ü"], [3, true], [4, 2 ** 40]));
  expect([message.number(1), message.text(2), message.number(3), message.number(4)]).toEqual([
    2n ** 64n - 1n,
    "ü",
    1n,
    2n ** 40n,
  ]);
});
