/** Copies, file calls and ports on the real agent as a process. */
import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import { createConnection, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { join } from "node:path";
import { Readable } from "node:stream";
import { buffer, text } from "node:stream/consumers";
import * as fc from "fast-check";
import { connectUnix } from "../util/socket-path.ts";
import { bytesOfText } from "../util/byte-text.ts";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { fakeGuest } from "../../test/exec-cases/fake-guest.ts";
import type { FakeGuest } from "../../test/exec-cases/fake-guest.ts";
import { listStreams } from "./commands.ts";
import { download, homeOf, upload } from "./copy.ts";
import { readFile, writeFile } from "./file-stream.ts";
import { listFiles, makeDirectory, moveFile, removeFile, statFile, watchFiles } from "./files.ts";
import { forwardToGuest, forwardToHost } from "./ports.ts";
import type { Forwarding } from "./ports.ts";
import { describeTree, makeTree, treeArbitrary } from "./testing/trees.ts";

const scale = Number(process.env["VMSAN_TEST_SCALE"] ?? 1);
const isRoot = process.geteuid?.() === 0;
let guest: FakeGuest;
let dir: string;
beforeAll(async () => {
  guest = await fakeGuest();
});
afterAll(async () => await guest.close());
beforeEach(() => {
  dir = fs.mkdtempSync(join(guest.dir, "t-"));
  fs.mkdirSync(join(dir, "guest"));
  fs.mkdirSync(join(dir, "host"));
});
const inGuest = (...parts: string[]): string => join(dir, "guest", ...parts);
const onHost = (...parts: string[]): string => join(dir, "host", ...parts);

describe("copies", () => {
  test("random trees go up and come back identical", async () => {
    await fc.assert(
      fc.asyncProperty(treeArbitrary, async (tree) => {
        const work = fs.mkdtempSync(onHost("p-"));
        makeTree(Buffer.from(join(work, "in")), tree);
        const there = inGuest(work.slice(-6));
        await upload(guest.channel, [join(work, "in")], there);
        await download(guest.channel, there, join(work, "out"));
        const original = describeTree(Buffer.from(join(work, "in")));
        expect(describeTree(Buffer.from(there))).toEqual(original);
        expect(describeTree(Buffer.from(join(work, "out")))).toEqual(original);
      }),
      { numRuns: 40 * scale },
    );
  });

  test("into a directory, to a name, several at once, with a slash", async () => {
    fs.writeFileSync(onHost("a"), "A", { mode: 0o640 });
    fs.writeFileSync(onHost("b"), "B");
    await upload(guest.channel, [onHost("a")], inGuest());
    await upload(guest.channel, [onHost("a")], inGuest("renamed"));
    await upload(guest.channel, [onHost("a"), onHost("b")], inGuest("many"));
    await upload(guest.channel, [onHost("b")], inGuest("slash/"));
    const files = describeTree(Buffer.from(inGuest())).map(
      (line) => (JSON.parse(line) as string[])[0],
    );
    expect(files).toEqual([
      "",
      "/a",
      "/many",
      "/many/a",
      "/many/b",
      "/renamed",
      "/slash",
      "/slash/b",
    ]);
    expect(fs.statSync(inGuest("renamed")).mode & 0o777).toBe(0o640);
    await download(guest.channel, inGuest("a"), onHost("copy"));
    await download(guest.channel, inGuest("many"), onHost());
    expect(fs.readFileSync(onHost("copy"), "utf8")).toBe("A");
    expect(fs.readdirSync(onHost("many")).sort()).toEqual(["a", "b"]);
  });

  test("what is not there is an error that names it, and nothing is left", async () => {
    await expect(upload(guest.channel, [onHost("none")], inGuest())).rejects.toMatchObject({
      code: "ERR_AGENT_UPLOAD",
    });
    await expect(download(guest.channel, inGuest("none"), onHost())).rejects.toMatchObject({
      code: "ERR_AGENT_FILE",
    });
    fs.writeFileSync(onHost("a"), "A");
    await expect(upload(guest.channel, [onHost("a")], inGuest("no/dir/a"))).rejects.toHaveProperty(
      "code",
    );
    await expect(download(guest.channel, inGuest(), onHost("no/dir/a"))).rejects.toMatchObject({
      code: "ERR_AGENT_DOWNLOAD",
    });
    expect([fs.readdirSync(inGuest()), fs.readdirSync(onHost())]).toEqual([[], ["a"]]);
  });

  test("names that are not UTF-8: files and directories, both ways, here and there", async () => {
    const raw = (path: string): Buffer => bytesOfText(path);
    const [file, tree] = ["f\uDCFF\uDCFEé", "t\uDCE4"];
    fs.writeFileSync(raw(onHost(file)), "A");
    fs.mkdirSync(raw(onHost(tree)));
    fs.writeFileSync(raw(onHost(tree, file)), "B");
    await upload(guest.channel, [onHost(file), onHost(tree)], inGuest(`d\uDC80`));
    await upload(guest.channel, [onHost(file)], inGuest(`d\uDC80`, "new\uDCFD"));
    await upload(guest.channel, [onHost(file)], inGuest(`d\uDC80`, tree));
    const names = (await listFiles(guest.channel, inGuest(`d\uDC80`), { recursive: true })).map(
      ({ path }) => path.slice(inGuest("d-").length),
    );
    expect(names).toEqual([`/${file}`, "/new\uDCFD", `/${tree}`, `/${tree}/${file}`]);
    const there = raw(inGuest(`d\uDC80`, tree, file));
    expect(fs.readFileSync(there, "utf8")).toBe("A");
    await writeFile(guest.channel, inGuest("d\uDC80/w\uDCFF"), Readable.from([Buffer.from("C")]));
    await moveFile(guest.channel, inGuest("d\uDC80/w\uDCFF"), inGuest("d\uDC80/v\uDCFF"));
    expect(fs.readFileSync(raw(inGuest("d\uDC80/v\uDCFF")), "utf8")).toBe("C");

    await download(guest.channel, inGuest("d\uDC80"), onHost());
    await download(guest.channel, inGuest("d\uDC80", file), onHost("back\uDCFF"));
    await download(guest.channel, inGuest("d\uDC80", file), onHost(tree));
    expect(fs.readFileSync(raw(onHost("d\uDC80", tree, file)), "utf8")).toBe("A");
    expect(fs.readFileSync(raw(onHost("back\uDCFF")), "utf8")).toBe("A");
    expect(fs.readFileSync(raw(onHost(tree, file)), "utf8")).toBe("A");
    await expect(
      download(guest.channel, inGuest("d\uDC80"), onHost("no\uDCFF/a")),
    ).rejects.toMatchObject({
      code: "ERR_AGENT_DOWNLOAD",
      message: expect.stringContaining("no\uDCFF") as string,
    });
  });

  test("an aborted copy leaves nothing on either side", async () => {
    fs.writeFileSync(onHost("big"), randomBytes(30_000_000));
    const up = new AbortController();
    await expect(
      upload(guest.channel, [onHost("big")], inGuest("big"), {
        signal: up.signal,
        onProgress: (bytes) => bytes > 3_000_000 && up.abort(new Error("enough")),
      }),
    ).rejects.toThrow("enough");
    expect(fs.readdirSync(inGuest())).toEqual([]);
    fs.renameSync(onHost("big"), inGuest("big"));
    const down = new AbortController();
    await expect(
      download(guest.channel, inGuest("big"), onHost("big"), {
        signal: down.signal,
        onProgress: (bytes) => bytes > 3_000_000 && down.abort(new Error("enough")),
      }),
    ).rejects.toThrow("enough");
    expect(fs.readdirSync(onHost())).toEqual([]);
    expect((await listStreams(guest.channel)).filter(({ running }) => running)).toEqual([]);
  });

  test("files of /proc and /sys: what can be read counts, not what stat says", async () => {
    // Of /proc files stat says 0 bytes, of /sys files 4096.
    const files = [
      "/proc/self/limits",
      "/proc/filesystems",
      "/sys/kernel/mm/transparent_hugepage/enabled",
    ];
    for (const file of files.filter((path) => fs.existsSync(path))) {
      await download(guest.channel, file, onHost("down"));
      await upload(guest.channel, [file], inGuest("up"));
      const length = fs.readFileSync(file).length;
      expect(length, file).toBeGreaterThan(0);
      expect(fs.readFileSync(onHost("down")).length, file).toBe(length);
      expect(fs.readFileSync(inGuest("up")).length, file).toBe(length);
    }
  });

  test("times before 1970 are kept both ways", async () => {
    const old = -315_619_200; // 1960
    fs.mkdirSync(onHost("old"));
    fs.writeFileSync(onHost("old/file"), "x");
    fs.symlinkSync("file", onHost("old/link"));
    for (const name of ["old/file", "old/link", "old"]) {
      fs.lutimesSync(onHost(name), new Date(old * 1000), new Date(old * 1000));
    }
    await upload(guest.channel, [onHost("old")], inGuest("there"));
    await download(guest.channel, inGuest("there"), onHost("back"));
    for (const path of [inGuest("there"), onHost("back")]) {
      for (const name of ["", "/file", "/link"]) {
        expect(fs.lstatSync(path + name).mtimeMs, path + name).toBe(old * 1000);
      }
    }
  });

  test("a guest's symlink in the way of an upload is replaced, not followed", async () => {
    fs.symlinkSync(onHost("victim"), inGuest("l"));
    fs.writeFileSync(onHost("victim"), "safe");
    fs.writeFileSync(onHost("a"), "new");
    await upload(guest.channel, [onHost("a")], inGuest("l"));
    expect(fs.readFileSync(onHost("victim"), "utf8")).toBe("safe");
    expect(fs.readFileSync(inGuest("l"), "utf8")).toBe("new");
  });

  test.skipIf(!isRoot)("as another user", async () => {
    fs.writeFileSync(onHost("a"), "A");
    fs.chownSync(inGuest(), 12_345, 12_345);
    fs.chmodSync(guest.dir, 0o755);
    fs.chmodSync(dir, 0o755);
    await upload(guest.channel, [onHost("a")], inGuest("a"), { user: "12345:12345" });
    expect(fs.statSync(inGuest("a")).uid).toBe(12_345);
    fs.writeFileSync(inGuest("secret"), "S", { mode: 0o600 });
    await expect(
      download(guest.channel, inGuest("secret"), onHost("secret"), { user: "12345:12345" }),
    ).rejects.toHaveProperty("code");
    expect(fs.readdirSync(onHost())).toEqual(["a"]);
  });

  test("one file to and from a stream", async () => {
    const data = randomBytes(2_000_000);
    await writeFile(
      guest.channel,
      inGuest("f"),
      Readable.from([data.subarray(0, 5), data.subarray(5)]),
      { mode: 0o600 },
    );
    expect(fs.statSync(inGuest("f")).mode & 0o777).toBe(0o600);
    const chunks: Buffer[] = [];
    await readFile(guest.channel, inGuest("f"), (bytes) => void chunks.push(Buffer.from(bytes)));
    expect(Buffer.concat(chunks).equals(data)).toBe(true);
    const broken = Readable.from(
      (async function* () {
        yield Buffer.from("half");
        await Promise.reject(new Error("source broke"));
      })(),
    );
    await expect(writeFile(guest.channel, inGuest("f"), broken)).rejects.toThrow("source broke");
    expect(fs.readFileSync(inGuest("f")).equals(data)).toBe(true);
    expect(fs.readdirSync(inGuest())).toEqual(["f"]);
  });

  test("relative names in the guest start at home", async () => {
    const name = `vmsan-test-${randomBytes(4).toString("hex")}`;
    const home = await homeOf(guest.channel);
    fs.writeFileSync(onHost(name), "x");
    try {
      await upload(guest.channel, [onHost(name)], "./");
      expect(fs.readFileSync(join(home, name), "utf8")).toBe("x");
      await download(guest.channel, `~/${name}`, onHost("back"));
      expect(fs.readFileSync(onHost("back"), "utf8")).toBe("x");
    } finally {
      fs.rmSync(join(home, name), { force: true });
    }
  });

  test("home directories", async () => {
    expect(await homeOf(guest.channel, "root")).toBe("/root");
    expect(await homeOf(guest.channel, "424242")).toBe("/");
  });
});

describe("file calls", () => {
  test("stat, list, mkdir, move, remove", async () => {
    const { channel } = guest;
    await makeDirectory(channel, inGuest("a/b"), { parents: true, mode: 0o750 });
    const odd = Buffer.concat([Buffer.from(inGuest("a/")), Buffer.from([0xff, 0x0a])]);
    fs.writeFileSync(odd, "12345");
    fs.symlinkSync("b", inGuest("a/l"));
    const entries = await listFiles(channel, inGuest("a"));
    expect(
      new Set(entries.map(({ name, type, size }) => [name.toString("latin1"), type, size])),
    ).toEqual(
      new Set([
        ["b", "dir", expect.any(Number)],
        ["l", "symlink", expect.any(Number)],
        ["\u00ff\n", "file", 5],
      ]),
    );
    expect(await statFile(channel, inGuest("a/l"))).toMatchObject({
      type: "symlink",
      target: Buffer.from("b"),
    });
    expect(await statFile(channel, inGuest("a/l"), { follow: true })).toMatchObject({
      type: "dir",
      mode: 0o750,
    });
    await moveFile(channel, inGuest("a/b"), inGuest("c"));
    expect((await listFiles(channel, inGuest(), { recursive: true })).length).toBe(4);
    await expect(moveFile(channel, inGuest("a/l"), inGuest("c"))).rejects.toHaveProperty("code");
    await expect(removeFile(channel, inGuest("a"))).rejects.toHaveProperty("code");
    await removeFile(channel, inGuest("a"), { recursive: true });
    expect(fs.readdirSync(inGuest())).toEqual(["c"]);
    await expect(statFile(channel, inGuest("a"))).rejects.toMatchObject({ code: "ERR_AGENT_FILE" });
  });

  test("watch, with directories made later", async () => {
    const seen: string[] = [];
    for await (const { event, path } of watchFiles(guest.channel, inGuest(), {
      recursive: true,
      onReady: () => fs.mkdirSync(inGuest("d")),
    })) {
      const name = path.toString().slice(inGuest().length);
      if (event === "create") seen.push(name);
      if (name === "/d" && event === "create") fs.writeFileSync(inGuest("d/f"), "x");
      if (name === "/d/f") break;
    }
    expect(seen).toContain("/d");
    expect(seen).toContain("/d/f");
  });
});

describe("ports", () => {
  let servers: Server[] = [];
  const forwardings: Forwarding[] = [];
  afterEach(async () => {
    for (const forwarding of forwardings.splice(0)) await forwarding.close();
    for (const server of servers) server.close();
    servers = [];
  });

  /** Something that answers each connection once its input has ended. */
  const serve = async (answer: (input: Buffer, socket: Socket) => void): Promise<number> => {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on("error", () => undefined);
      buffer(socket).then(
        (input) => answer(input, socket),
        () => undefined,
      );
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return (server.address() as AddressInfo).port;
  };

  /** Send, end, and read the answer. */
  const ask = async (port: number, input: Buffer): Promise<Buffer> => {
    const socket = createConnection({ port, host: "127.0.0.1", allowHalfOpen: true });
    socket.end(input);
    return await buffer(socket);
  };
  const local = (port = 0) => ({ network: "tcp" as const, host: "127.0.0.1", port });

  test("host to guest: half-closes, big data, many connections", async () => {
    const port = await serve((input, socket) =>
      socket.end(Buffer.concat([Buffer.from("got "), input])),
    );
    const forwarding = await forwardToGuest(guest.channel, local(), local(port));
    forwardings.push(forwarding);
    if (forwarding.address.network !== "tcp") throw new Error("not tcp");
    const here = forwarding.address.port;
    const big = randomBytes(5_000_000);
    expect((await ask(here, big)).subarray(4).equals(big)).toBe(true);
    const answers = await Promise.all(
      Array.from({ length: 30 }, (_, i) => ask(here, Buffer.from(`${i}`))),
    );
    expect(answers.map(String)).toEqual(Array.from({ length: 30 }, (_, i) => `got ${i}`));
    expect(forwarding.connections).toBe(0);
  });

  test("host to guest: nobody listens there; a port in use here; a unix socket", async () => {
    const port = await serve((_input, socket) => socket.end("hello"));
    const errors: unknown[] = [];
    const nowhere = await forwardToGuest(guest.channel, local(), local(1), {
      onError: (error) => errors.push(error),
    });
    forwardings.push(nowhere);
    if (nowhere.address.network !== "tcp") throw new Error("not tcp");
    await ask(nowhere.address.port, Buffer.from("x")).catch(() => undefined);
    expect(errors).toMatchObject([{ code: "ERR_AGENT_DIAL" }]);
    await expect(forwardToGuest(guest.channel, local(port), local(1))).rejects.toMatchObject({
      code: "ERR_VALIDATION_PORT_CONFLICT",
    });
    fs.mkdirSync(onHost("p".repeat(100)));
    const path = onHost("p".repeat(100), "x.sock");
    const unix = await forwardToGuest(guest.channel, { network: "unix", path }, local(port));
    const socket = await connectUnix(path);
    socket.end("x");
    expect(await text(socket)).toBe("hello");
    await unix.close();
    expect(fs.existsSync(path)).toBe(false);
  });

  test("guest to host", async () => {
    const port = await serve((input, socket) =>
      socket.end(Buffer.concat([Buffer.from("host got "), input])),
    );
    const forwarding = await forwardToHost(guest.channel, local(), local(port));
    if (forwarding.address.network !== "tcp") throw new Error("not tcp");
    const there = forwarding.address.port;
    expect(there).toBeGreaterThan(0);
    expect(String(await ask(there, Buffer.from("x")))).toBe("host got x");
    const big = randomBytes(3_000_000);
    expect((await ask(there, big)).subarray(9).equals(big)).toBe(true);
    await forwarding.close();
    await expect(ask(there, Buffer.from("x"))).rejects.toMatchObject({ code: "ECONNREFUSED" });
    await expect(forwardToHost(guest.channel, local(port), local(1))).rejects.toHaveProperty(
      "code",
    );
  });

  test("guest to host, no more at once than is said", async () => {
    let open = 0;
    const server = createServer(() => (open += 1));
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const forwarding = await forwardToHost(guest.channel, local(), local(port), { most: 2 });
    forwardings.push(forwarding);
    if (forwarding.address.network !== "tcp") throw new Error("not tcp");
    const there = { port: forwarding.address.port, host: "127.0.0.1" };
    let ended = 0;
    const all = Array.from({ length: 5 }, () => createConnection(there));
    for (const socket of all) {
      socket.on("error", () => undefined).on("close", () => (ended += 1));
      socket.resume();
    }
    await expect.poll(() => [open, ended], { timeout: 60_000 }).toEqual([2, 3]);
    for (const socket of all) socket.destroy();
  });

  test("a connection that is reset on one side ends on the other", async () => {
    const port = await serve(() => undefined);
    const forwarding = await forwardToGuest(guest.channel, local(), local(port));
    forwardings.push(forwarding);
    if (forwarding.address.network !== "tcp") throw new Error("not tcp");
    const accepted = new Promise<Socket>((resolve) => servers[0]?.once("connection", resolve));
    const socket = createConnection({ port: forwarding.address.port, host: "127.0.0.1" });
    socket.on("error", () => undefined);
    const far = await accepted;
    const ended = new Promise((resolve) => far.once("end", resolve).once("error", resolve));
    socket.resetAndDestroy();
    await ended;
    far.destroy();
    const running = async (): Promise<unknown[]> =>
      (await listStreams(guest.channel)).filter((stream) => stream.running);
    await expect.poll(running).toEqual([]);
  });
});
