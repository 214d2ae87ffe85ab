/**
 * The published npm package `e2b`, unmodified, against a gateway and a guest that really boots: one sandbox
 * and a story of what an agent does with it.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import {
  AuthenticationError,
  CommandExitError,
  FileNotFoundError,
  FileType,
  FilesystemEventType,
  InvalidArgumentError,
  NotFoundError,
  Sandbox,
  SandboxNotFoundError,
  Template,
  TimeoutError,
  Volume,
} from "e2b";
import type { ConnectionOpts } from "e2b";
import { Vmsan } from "../../../src/client/vmsan.ts";
import { Keys } from "../../../src/gateway/access/keys.ts";
import { startGateway } from "../../../src/gateway/gateway.ts";
import type { ListeningGateway } from "../../../src/gateway/http/server.ts";
import { layoutOf } from "../../../src/util/paths.ts";
import { installation } from "../../fixtures/ladder.ts";
import { vmsanBin } from "../support.ts";

const here = installation("base");
let gateway: ListeningGateway;
let keys: Keys;
let options: ConnectionOpts;
let sandbox: Sandbox;

/** Options of a client with a new key of a project. */
async function client(project: string): Promise<ConnectionOpts> {
  const { text } = await keys.create({ project });
  return { apiKey: `e2b_${text}`, apiUrl: gateway.url, sandboxUrl: gateway.url };
}

beforeAll(async () => {
  gateway = await startGateway({ dir: here.dir, listen: "127.0.0.1:0" });
  keys = new Keys(layoutOf(here.dir).gateway);
  options = await client("ours");
  sandbox = await Sandbox.create("base", {
    ...options,
    metadata: { task: "é=&1", other: "2" },
    envs: { FROM_CREATE: "created", BOTH: "create" },
    timeoutMs: 600_000,
  });
});

afterAll(async () => {
  await sandbox?.kill();
  await gateway?.close();
});

/** What comes of polling until it is there. */
async function until<T>(poll: () => T | undefined | Promise<T | undefined>): Promise<T> {
  for (let i = 0; i < 200; i++) {
    const value = await poll();
    if (value !== undefined) return value;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error("it did not come");
}

describe("control plane", () => {
  test("a sandbox is described, listed by pages and found by its metadata", async () => {
    const info = await sandbox.getInfo();
    expect(info).toMatchObject({
      sandboxId: sandbox.sandboxId,
      templateId: "base",
      state: "running",
      metadata: { task: "é=&1", other: "2" },
    });
    expect(info.endAt.getTime() - info.startedAt.getTime()).toBe(600_000);
    expect(await sandbox.isRunning()).toBe(true);

    const ids = async (query: object): Promise<string[]> => {
      const pages = Sandbox.list({ ...options, limit: 1, ...query });
      const found: string[] = [];
      while (pages.hasNext) found.push(...(await pages.nextItems()).map((one) => one.sandboxId));
      return found;
    };
    expect(await ids({ query: { metadata: { task: "é=&1" } } })).toEqual([sandbox.sandboxId]);
    expect(await ids({ query: { metadata: { task: "1" } } })).toEqual([]);
    expect(await ids({ query: { state: ["paused"] } })).toEqual([]);
  });

  test("its time limit is set anew, and connecting never shortens it", async () => {
    await sandbox.setTimeout(500_000);
    const end = async (): Promise<number> => (await sandbox.getInfo()).endAt.getTime();
    const before = await end();
    expect(Math.abs(before - Date.now() - 500_000)).toBeLessThan(20_000);
    const again = await Sandbox.connect(sandbox.sandboxId, { ...options, timeoutMs: 10_000 });
    expect(again.sandboxId).toBe(sandbox.sandboxId);
    expect(await end()).toBe(before);
    await Sandbox.connect(sandbox.sandboxId, { ...options, timeoutMs: 900_000 });
    expect(await end()).toBeGreaterThan(before);
  });

  test("strangers and other projects get nothing, in the classes that the client has for it", async () => {
    const other = await client("other");
    const { sandboxId } = sandbox;
    await expect(Sandbox.connect(sandboxId, other)).rejects.toThrow(SandboxNotFoundError);
    await expect(Sandbox.getInfo(sandboxId, other)).rejects.toThrow(SandboxNotFoundError);
    expect(await Sandbox.kill(sandboxId, other)).toBe(false);
    expect(await Sandbox.list(other).nextItems()).toEqual([]);
    const nobody = { ...options, apiKey: `e2b_${"0".repeat(48)}` };
    await expect(Sandbox.create("base", nobody)).rejects.toThrow(AuthenticationError);
    await expect(Sandbox.create("no-such-template", options)).rejects.toThrow(/no-such-template/);
    expect(await Sandbox.kill("vm-00000000", options)).toBe(false);
  });
});

describe("commands", () => {
  test("output, status, directory, user and environment are a command's own", async () => {
    const hello = await sandbox.commands.run("echo hello; echo oops >&2");
    expect(hello).toMatchObject({ stdout: "hello\n", stderr: "oops\n", exitCode: 0 });
    const failure = await sandbox.commands.run("echo partial; exit 7").catch((e: unknown) => e);
    expect(failure).toBeInstanceOf(CommandExitError);
    expect(failure).toMatchObject({ exitCode: 7, stdout: "partial\n" });
    const { stdout } = await sandbox.commands.run(
      'echo "$PWD $USER $HOME $FROM_CREATE $BOTH $OWN $E2B_SANDBOX $E2B_SANDBOX_ID"; id -un; sudo id -un',
      { envs: { OWN: "own", BOTH: "call" } },
    );
    expect(stdout).toBe(
      `/home/user user /home/user created call own true ${sandbox.sandboxId}\nuser\nroot\n`,
    );
    const asRoot = await sandbox.commands.run("pwd; id -un; echo $HOME", {
      user: "root",
      cwd: "/tmp",
    });
    expect(asRoot.stdout).toBe("/tmp\nroot\n/root\n");
    await expect(sandbox.commands.run("true", { user: "nobody-here" })).rejects.toThrow(
      AuthenticationError,
    );
    await expect(sandbox.commands.run("true", { cwd: "/no/such" })).rejects.toThrow(
      InvalidArgumentError,
    );
  });

  test("output comes as it is printed, whole characters and megabytes of it", async () => {
    const parts: string[] = [];
    await sandbox.commands.run("echo one; sleep 0.4; echo two", {
      onStdout: (text) => void parts.push(text),
    });
    expect(parts).toEqual(["one\n", "two\n"]);
    const big = await sandbox.commands.run("yes ä€😀 | head -c 3000000");
    expect(Buffer.byteLength(big.stdout)).toBeGreaterThanOrEqual(2_999_997);
    expect(big.stdout.startsWith("ä€😀\nä€😀\n")).toBe(true);
  });

  test("a command in the background is listed, fed, reconnected to and killed", async () => {
    const cat = await sandbox.commands.run("while read -r line; do echo got $line; done", {
      background: true,
      stdin: true,
    });
    const listed = await sandbox.commands.list();
    expect(listed.find(({ pid }) => pid === cat.pid)).toMatchObject({ cmd: "/bin/bash" });
    await sandbox.commands.sendStdin(cat.pid, "first\n");
    await until(() => (cat.stdout.includes("got first") ? true : undefined));
    await cat.disconnect();
    let heard = "";
    const again = await sandbox.commands.connect(cat.pid, {
      onStdout: (text) => void (heard += text),
    });
    await again.sendStdin("second\n");
    await until(() => (heard === "got second\n" ? true : undefined));
    await again.closeStdin();
    expect((await again.wait()).exitCode).toBe(0);
    expect((await sandbox.commands.list()).some(({ pid }) => pid === cat.pid)).toBe(false);

    const sleeper = await sandbox.commands.run("sleep 1000", { background: true });
    expect(await sandbox.commands.kill(sleeper.pid)).toBe(true);
    expect(await sleeper.wait().catch((e: unknown) => e)).toBeInstanceOf(CommandExitError);
    expect(await sandbox.commands.kill(sleeper.pid)).toBe(false);
    await expect(sandbox.commands.connect(999_999)).rejects.toThrow(NotFoundError);
    await expect(sandbox.commands.sendStdin(999_999, "x")).rejects.toThrow(NotFoundError);
  });

  test("a command past its time limit is given up", async () => {
    await expect(sandbox.commands.run("sleep 30", { timeoutMs: 1_000 })).rejects.toThrow(
      TimeoutError,
    );
  });

  test("a terminal takes keys and its size", async () => {
    let screen = "";
    const decoder = new TextDecoder();
    const pty = await sandbox.pty.create({
      cols: 80,
      rows: 24,
      envs: { IN_PTY: "yes" },
      onData: (bytes) => void (screen += decoder.decode(bytes)),
    });
    const type = async (keys: string): Promise<void> =>
      await sandbox.pty.sendInput(pty.pid, new TextEncoder().encode(keys));
    await type("echo $IN_PTY; stty size; tty >/dev/null && echo 'a t''ty'\n");
    await until(() => (screen.includes("a tty") ? true : undefined));
    expect(screen).toContain("24 80");
    await sandbox.pty.resize(pty.pid, { cols: 100, rows: 40 });
    await type("stty size\n");
    await until(() => (screen.includes("40 100") ? true : undefined));
    expect(await sandbox.pty.kill(pty.pid)).toBe(true);
    expect(await pty.wait().catch((e: unknown) => e)).toBeInstanceOf(CommandExitError);
    const second = await sandbox.pty.create({ cols: 80, rows: 24, onData: () => undefined });
    await sandbox.pty.sendInput(second.pid, new TextEncoder().encode("exit 3\n"));
    expect(await second.wait().catch((e: unknown) => e)).toMatchObject({ exitCode: 3 });
  });
});

describe("files", () => {
  test("what is written is read in every form", async () => {
    const { files } = sandbox;
    expect(await files.write("dir/note.txt", "Grüße")).toMatchObject({
      name: "note.txt",
      path: "/home/user/dir/note.txt",
      type: FileType.FILE,
    });
    expect(await files.read("/home/user/dir/note.txt")).toBe("Grüße");
    const bytes = Uint8Array.from({ length: 300_000 }, (_, i) => (i * 7) % 256);
    await files.write("~/bytes", bytes.buffer);
    const hash = createHash("sha256").update(bytes).digest("hex");
    expect((await sandbox.commands.run("sha256sum bytes")).stdout).toContain(hash);
    const read = await files.read("bytes", { format: "bytes" });
    expect(createHash("sha256").update(read).digest("hex")).toBe(hash);
    expect((await files.read("bytes", { format: "blob" })).size).toBe(bytes.length);
    let streamed = 0;
    for await (const part of await files.read("bytes", { format: "stream" }))
      streamed += part.length;
    expect(streamed).toBe(bytes.length);
    await files.write("empty", "");
    expect(await files.read("empty")).toBe("");
    const several = await files.write([
      { path: "several/a", data: "A" },
      { path: "several/b", data: new Blob(["B"]) },
    ]);
    expect(several.map(({ path }) => path)).toEqual([
      "/home/user/several/a",
      "/home/user/several/b",
    ]);
    await files.write("zipped", "z".repeat(100_000), { gzip: true });
    expect(await files.read("zipped", { gzip: true })).toBe("z".repeat(100_000));
    const owned = await sandbox.commands.run("stat -c %U:%G:%a dir dir/note.txt bytes");
    expect(owned.stdout).toBe("user:user:755\nuser:user:644\nuser:user:644\n");
    // Whoever calls may name any user: permissions keep nobody out, as with E2B.
    await files.write("/srv/theirs/file", "x");
    const theirs = await sandbox.commands.run("stat -c %U /srv/theirs /srv/theirs/file");
    expect(theirs.stdout).toBe("user\nuser\n");
    await files.write("/root/secret", "root's", { user: "root" });
    expect(await files.read("/root/secret", { user: "root" })).toBe("root's");
    await expect(files.read("nothing/here")).rejects.toThrow(FileNotFoundError);
    await expect(files.read("dir")).rejects.toThrow(InvalidArgumentError);
    await expect(files.write("dir", "x")).rejects.toThrow(InvalidArgumentError);
  });

  test("directories are made, listed to a depth, moved and removed", async () => {
    const { files } = sandbox;
    expect(await files.makeDir("tree/deep/er")).toBe(true);
    expect(await files.makeDir("tree/deep/er")).toBe(false);
    await files.write("tree/deep/f", "12345");
    await sandbox.commands.run("ln -s deep/f tree/link; ln -s nowhere tree/dangling");
    const names = async (depth: number): Promise<string[]> =>
      (await files.list("tree", { depth })).map(({ path }) =>
        path.slice("/home/user/tree/".length),
      );
    expect(await names(1)).toEqual(["dangling", "deep", "link"]);
    expect(await names(2)).toEqual(["dangling", "deep", "deep/er", "deep/f", "link"]);
    await expect(files.list("tree", { depth: 0 })).rejects.toThrow(InvalidArgumentError);
    await expect(files.list("tree/deep/f")).rejects.toThrow(InvalidArgumentError);
    await expect(files.list("no/such")).rejects.toThrow(FileNotFoundError);
    expect(await files.getInfo("tree/deep/f")).toMatchObject({
      name: "f",
      type: FileType.FILE,
      size: 5,
      mode: 0o644,
      permissions: "-rw-r--r--",
      owner: "user",
      group: "user",
    });
    expect(await files.getInfo("tree/link")).toMatchObject({
      name: "link",
      symlinkTarget: "/home/user/tree/deep/f",
    });
    expect(await files.rename("tree/deep/f", "tree/new/place")).toMatchObject({ name: "place" });
    expect(await files.exists("tree/deep/f")).toBe(false);
    expect(await files.exists("tree/new/place")).toBe(true);
    await expect(files.rename("tree/nothing", "x")).rejects.toThrow(FileNotFoundError);
    await files.remove("tree");
    expect(await files.exists("tree")).toBe(false);
    await files.remove("tree");
  });

  test("metadata of files are attributes that the guest sees, sets and keeps", async () => {
    const { files } = sandbox;
    await files.write("tagged", "1", { metadata: { author: "me", kind: "draft" } });
    expect((await files.getInfo("tagged")).metadata).toEqual({ author: "me", kind: "draft" });
    await sandbox.commands.run(
      "python3 -c \"import os; os.setxattr('tagged', 'user.e2b.inside', b'yes')\"; mv tagged moved; cp -a moved copied",
    );
    const all = { author: "me", kind: "draft", inside: "yes" };
    expect((await files.getInfo("copied")).metadata).toEqual(all);
    const listed = await files.list(".");
    expect(listed.find(({ name }) => name === "moved")?.metadata).toEqual(all);
    await files.write("moved", "2", { metadata: { author: "you" } });
    expect((await files.getInfo("moved")).metadata).toEqual({ author: "you" });
    await expect(files.write("x", "", { metadata: { a: "x".repeat(5000) } })).rejects.toThrow();
  });

  test("changes below a directory are told", async () => {
    const { files } = sandbox;
    await files.makeDir("watched/sub");
    await files.write("watched/sub/known", "1");
    const seen: string[] = [];
    const handle = await files.watchDir(
      "watched",
      ({ type, name }) => void seen.push(`${type} ${name}`),
      { recursive: true },
    );
    await files.write("watched/sub/known", "2");
    await until(() => seen.find((one) => one === `${FilesystemEventType.WRITE} sub/known`));
    await files.rename("watched/sub/known", "watched/renamed");
    await until(() => seen.find((one) => one === `${FilesystemEventType.RENAME} sub/known`));
    await until(() => seen.find((one) => one === `${FilesystemEventType.CREATE} renamed`));
    await files.write("watched/new/dir/file", "1");
    await until(() => seen.find((one) => one === `${FilesystemEventType.CREATE} new/dir/file`));
    await files.remove("watched/renamed");
    await until(() => seen.find((one) => one === `${FilesystemEventType.REMOVE} renamed`));
    await handle.stop();
    await expect(files.watchDir("no/such", () => undefined)).rejects.toThrow(FileNotFoundError);
  });

  test("signed addresses need nothing else, and a wrong or late one gets nothing", async () => {
    const up = await sandbox.uploadUrl("signed.txt");
    const form = new FormData();
    form.append("file", new Blob(["by address"]), "ignored");
    expect((await fetch(up, { method: "POST", body: form })).status).toBe(200);
    const down = await sandbox.downloadUrl("signed.txt", { useSignatureExpiration: 60_000 });
    const reply = await fetch(down);
    expect([reply.status, await reply.text()]).toEqual([200, "by address"]);
    const wrong = new URL(down);
    wrong.searchParams.set("path", "bytes");
    expect((await fetch(wrong)).status).toBe(401);
    const late = await sandbox.downloadUrl("signed.txt", { useSignatureExpiration: -60 });
    expect((await fetch(late)).status).toBe(401);
    expect((await fetch(`${gateway.url}/files?path=signed.txt`)).status).toBe(401);
  });
});

test("a volume outlives its sandbox, and what is in it is read and written with one and without", async () => {
  vi.stubEnv("E2B_VOLUME_API_URL", gateway.url);
  onTestFinished(() => void vi.unstubAllEnvs());
  const volume = await Volume.create(`story-${process.pid}`, options);
  onTestFinished(async () => void (await Volume.destroy(volume.volumeId, options)));
  // Nobody has it: a guest is started for this.
  await volume.writeFile("/in/from-outside", "outside", { force: true });
  const wish = { ...options, volumeMounts: { "/mnt/data": volume } };
  const holder = await Sandbox.create("base", { ...wish, timeoutMs: 600_000 });
  onTestFinished(async () => void (await holder.kill()));
  const { stdout } = await holder.commands.run(
    "cat /mnt/data/in/from-outside; echo inside > /mnt/data/in/from-inside; id -u; stat -c %u /mnt/data/in/from-inside",
  );
  expect(stdout).toBe("outside1000\n1000\n");
  expect(await volume.readFile("/in/from-inside")).toBe("inside\n");
  expect(await volume.updateMetadata("/in/from-inside", { uid: 7, mode: 0o600 })).toMatchObject({
    uid: 7,
    mode: 0o600,
  });
  expect((await volume.list("/", { depth: 2 })).map(({ path }) => path)).toEqual([
    "/in",
    "/in/from-inside",
    "/in/from-outside",
  ]);
});

describe("sleep, forks and snapshots", () => {
  test("it is measured, and its network is said anew", async () => {
    const [now] = await sandbox.getMetrics();
    expect(now).toMatchObject({ cpuCount: 1 });
    expect(now?.memTotal).toBeGreaterThan(2 ** 28);
    expect(now?.diskTotal).toBeGreaterThan(2 ** 30);
    expect(await sandbox.getMetrics({ end: new Date(Date.now() - 60_000) })).toEqual([]);
    await sandbox.commands.run("echo from the machine >/dev/console", { user: "root" });
    await until(async () => {
      const logs = await fetch(`${gateway.url}/v2/sandboxes/${sandbox.sandboxId}/logs?limit=100`, {
        headers: { "x-api-key": options.apiKey ?? "" },
      });
      const { logs: lines } = (await logs.json()) as { logs: { message: string }[] };
      return lines.some(({ message }) => message === "from the machine") || undefined;
    });
    await sandbox.updateNetwork({ allowInternetAccess: false });
    const { policy } = (await new Vmsan({ dir: here.dir }).get(sandbox.sandboxId)).view;
    expect(policy.mode).toBe("deny-all");
  });

  test("a pause keeps what runs, and connecting lets it go on", async () => {
    const sleeper = await sandbox.commands.run("sleep 5000", { background: true });
    await sleeper.disconnect();
    expect(await sandbox.pause()).toBe(true);
    expect(await sandbox.isRunning()).toBe(false);
    expect(await sandbox.pause()).toBe(false);
    expect((await sandbox.getInfo()).state).toBe("paused");
    await expect(sandbox.files.read("empty")).rejects.toThrow(TimeoutError);
    const again = await Sandbox.connect(sandbox.sandboxId, { ...options, timeoutMs: 700_000 });
    expect(await again.isRunning()).toBe(true);
    expect((await again.commands.list()).some(({ pid }) => pid === sleeper.pid)).toBe(true);
    expect((await again.getInfo()).endAt.getTime()).toBeGreaterThan(Date.now() + 600_000);
  });

  test("a fork goes on by itself, and ends at its time", async () => {
    await sandbox.files.write("state", "before");
    const [fork] = await sandbox.fork({ timeoutMs: 600_000 });
    if (!(fork instanceof Sandbox)) throw fork ?? new Error("no fork");
    expect(await fork.files.read("state")).toBe("before");
    await fork.files.write("state", "in the fork");
    expect(await sandbox.files.read("state")).toBe("before");
    await fork.setTimeout(1_000);
    await until(async () =>
      (await Sandbox.list(options).nextItems()).length === 1 ? true : undefined,
    );
    await expect(Sandbox.getInfo(fork.sandboxId, options)).rejects.toThrow(SandboxNotFoundError);
    await expect(Sandbox.fork("vm-00000000", options)).rejects.toThrow(SandboxNotFoundError);
  });

  test("a snapshot is a template for others, which sleep at their time and wake on use", async () => {
    const made = await sandbox.createSnapshot({ name: "ready" });
    const { snapshotId } = made;
    expect(made.names).toEqual(["ours/ready:default"]);
    const named = await Sandbox.listSnapshots({ ...options, name: "ready" }).nextItems();
    expect(named.map((one) => one.snapshotId)).toEqual([snapshotId]);
    expect(await Sandbox.listSnapshots({ ...options, name: "other" }).nextItems()).toEqual([]);
    const other = await client("other");
    await expect(Sandbox.create(snapshotId, other)).rejects.toThrow();
    expect(await Sandbox.deleteSnapshot(snapshotId, other)).toBe(false);

    const copy = await Sandbox.create("ready", {
      ...options,
      timeoutMs: 600_000,
      lifecycle: { onTimeout: "pause", autoResume: true },
      network: { maskRequestHost: "masked.example:${PORT}" },
    });
    const port = async (): Promise<{ status: number; text: string }> => {
      const headers = { "e2b-sandbox-id": copy.sandboxId, "e2b-sandbox-port": "8123" };
      const reply = await fetch(gateway.url, { headers });
      return { status: reply.status, text: await reply.text() };
    };
    try {
      expect(await copy.files.read("state")).toBe("before");
      await copy.setTimeout(1_000);
      await until(async () => ((await copy.getInfo()).state === "paused" ? true : undefined));
      expect(await copy.isRunning()).toBe(false);
      expect(await copy.files.read("state")).toBe("before");
      expect((await copy.getInfo()).state).toBe("running");
      await Sandbox.connect(copy.sandboxId, { ...options, timeoutMs: 600_000 });
      const server =
        "import http.server as h\nclass H(h.BaseHTTPRequestHandler):\n def do_GET(s):\n  s.send_response(200); s.end_headers(); s.wfile.write(s.headers['host'].encode())\nh.HTTPServer(('127.0.0.1', 8123), H).serve_forever()";
      await copy.files.write("server.py", server);
      await copy.commands.run("python3 server.py", { background: true, timeoutMs: 0 });
      const seen = await until(async () => {
        const reply = await port();
        return reply.status === 200 ? reply.text : undefined;
      });
      expect(seen).toBe("masked.example:8123");
    } finally {
      await copy.kill();
    }
    expect(await port()).toMatchObject({
      status: 502,
      text: expect.stringContaining("The sandbox was not found"),
    });
    expect(await Sandbox.deleteSnapshot(snapshotId, options)).toBe(true);
    expect(await Sandbox.deleteSnapshot(snapshotId, options)).toBe(false);
  });
});

describe("a gateway that dies", () => {
  test("takes no sandbox with it: clients learn of it at once, and go on with the next", async () => {
    const child = spawn(vmsanBin, ["serve", "--json", "--listen", "127.0.0.1:0"], {
      env: { ...process.env, VMSAN_DIR: here.dir },
      stdio: ["ignore", "pipe", "inherit"],
    });
    try {
      const [line] = (await once(child.stdout.setEncoding("utf8"), "data")) as [string];
      const { url } = JSON.parse(line) as { url: string };
      const { sandboxId } = sandbox;
      const there = { ...options, apiUrl: url, sandboxUrl: url };
      const through = await Sandbox.connect(sandboxId, there);
      const counting = await through.commands.run(
        "for i in $(seq 100000); do echo $i; sleep 0.2; done",
        {
          background: true,
          timeoutMs: 0,
        },
      );
      await until(() => (counting.stdout.includes("2\n") ? true : undefined));
      const ended = counting.wait().catch((error: unknown) => error);
      child.kill("SIGKILL");
      expect(await ended).toBeInstanceOf(Error);
      let heard = "";
      const again = await Sandbox.connect(sandboxId, options);
      const on = await again.commands.connect(counting.pid, {
        onStdout: (text) => void (heard += text),
      });
      await until(() => (heard.split("\n").length > 3 ? true : undefined));
      expect(Number.parseInt(heard, 10)).toBeGreaterThan(2);
      expect(await on.kill()).toBe(true);
    } finally {
      child.kill("SIGKILL");
    }
  });
});

describe("templates", () => {
  test("one is built in steps, named by tags, used, and removed", async () => {
    const said: string[] = [];
    const context = await mkdtemp(join(tmpdir(), "vmsan-e2b-copy-"));
    onTestFinished(() => rm(context, { recursive: true, force: true }));
    await mkdir(join(context, "tree/sub"), { recursive: true });
    await writeFile(join(context, "tree/a.txt"), "a\n");
    await writeFile(join(context, "tree/sub/b.txt"), "b\n");
    await symlink("a.txt", join(context, "tree/link"));
    await writeFile(join(context, "single.txt"), "single\n");
    const template = Template({ fileContextPath: context })
      .fromBaseImage()
      .copy("tree", "copied")
      .copy("tree/*.txt", "/opt/one.txt")
      .copy("single.txt", "/srv/new/", { user: "root", mode: 0o640 })
      .copy("single.txt", "copied/renamed")
      .setEnvs({ FROM_BUILD: "built" })
      .setUser("root")
      .runCmd("echo made > /srv/made; echo said; id -un")
      .setUser("user")
      .setStartCmd("sleep 4000", "test -e /srv/made");
    const built = await Template.build(template, "mine:v1", {
      ...options,
      cpuCount: 1,
      memoryMB: 512,
      onBuildLogs: ({ message }) => void said.push(message),
    });
    expect(said.some((line) => line.includes("said"))).toBe(true);
    expect(await Template.exists("mine:v1", options)).toBe(true);
    expect(await Template.exists("nobodys", options)).toBe(false);
    await Template.assignTags("mine:v1", ["stable"], options);
    const tags = (await Template.getTags(built.templateId, options)).map(({ tag }) => tag);
    expect(tags.toSorted()).toEqual(["stable", "v1"]);
    const made = await Sandbox.create("mine:stable", options);
    try {
      const { stdout } = await made.commands.run(
        "cat /srv/made; echo $FROM_BUILD; pgrep -f 'sleep 4000' >/dev/null && echo runs",
      );
      expect(stdout).toBe("made\nbuilt\nruns\n");
      const copied = await made.commands.run(
        "cd ~/copied; cat a.txt sub/b.txt renamed /opt/one.txt; readlink link; stat -c %U:%G:%a . a.txt /srv/new/single.txt",
      );
      expect(copied.stdout.replaceAll("\n", " ")).toBe(
        "a b single a a.txt user:user:755 user:user:644 root:root:640 ",
      );
    } finally {
      await made.kill();
    }
    await Template.removeTags("mine", ["stable"], options);
    await expect(Sandbox.create("mine:stable", options)).rejects.toThrow();
    const failing = Template().fromTemplate("mine:v1").runCmd("echo why >&2; exit 9");
    await expect(Template.build(failing, "failing", options)).rejects.toThrow(/status 9/);
    for (const name of ["mine", "failing"]) {
      const reply = await fetch(`${gateway.url}/templates/${name}`, {
        method: "DELETE",
        headers: { "x-api-key": options.apiKey ?? "" },
      });
      expect(reply.status).toBe(204);
    }
  });
});

describe("its end", () => {
  test("who listens is told, and it is gone", async () => {
    const vmsan = new Vmsan({ dir: here.dir });
    const { sandboxId } = sandbox;
    // Once it was told that the command runs: before, its client is told that there is no such sandbox.
    const sleeper = await sandbox.commands.run("sleep 1000", { background: true });
    const running = sleeper.wait().catch((error: unknown) => error);
    expect(await sandbox.kill()).toBe(true);
    expect(await running).toBeInstanceOf(TimeoutError);
    expect(await sandbox.isRunning()).toBe(false);
    expect(await sandbox.kill()).toBe(false);
    await expect(sandbox.commands.run("true")).rejects.toThrow(SandboxNotFoundError);
    await expect(Sandbox.connect(sandboxId, options)).rejects.toThrow(SandboxNotFoundError);
    expect((await vmsan.list()).some(({ id }) => id === sandboxId)).toBe(false);
  });
});
