/** OpenSSH's client and the server in a guest, which is a process of this host here. */
import { execFile, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { chmod, readFile, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { fakeDaemon } from "../exec-cases/fake-daemon.ts";
import type { FakeDaemon } from "../exec-cases/fake-daemon.ts";

// A host with too much to do takes its time.
vi.setConfig({ testTimeout: 240_000 });

const vmsanBin = join(import.meta.dirname, "../../bin/vmsan");
let daemon: FakeDaemon;
let config = "";
beforeAll(async () => {
  daemon = await fakeDaemon();
  config = join(daemon.dir, "config");
  const { stdout, stderr } = await call(vmsanBin, ["ssh-config", "vm"]);
  // Without it those below would wait in vain.
  expect(stderr).toBe("");
  await writeFile(config, stdout);
});
afterAll(async () => await daemon.close());

interface Called {
  code: number;
  stdout: Buffer;
  stderr: string;
}

/** Run a program to its end. */
async function call(
  program: string,
  args: string[],
  input: Uint8Array = Buffer.alloc(0),
): Promise<Called> {
  const env = { ...process.env, VMSAN_DIR: daemon.dir, VMSAN_URL: "" };
  return await new Promise((resolve) => {
    const child = execFile(
      program,
      args,
      { env, encoding: "buffer", maxBuffer: 1 << 28 },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === "number" ? error.code : 255;
        resolve({ code, stdout, stderr: stderr.toString() });
      },
    );
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(input);
  });
}

/** A port of this host on which nothing listens. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const ssh = async (args: string[], input?: Uint8Array): Promise<Called> =>
  await call("ssh", ["-F", config, ...args], input);

test("a command with its status, by the configuration and by vmsan ssh", async () => {
  const host = "vm-0123abcd.vmsan";
  const { code, stdout, stderr } = await ssh(
    [host, "cat; echo complaint >&2; exit 7"],
    Buffer.from("typed"),
  );
  expect({ code, out: stdout.toString(), stderr }).toEqual({
    code: 7,
    out: "typed",
    stderr: "complaint\n",
  });
  const again = await call(vmsanBin, ["ssh", "vm", "echo", "$USER;", "exit", "9"]);
  expect(again).toMatchObject({ code: 9, stderr: "" });
  expect(again.stdout.toString()).toBe("root\n");
  const other = await call(vmsanBin, ["ssh", "nobody-of-that-name@vm", "id"]);
  expect(other.code).toBe(255);
  expect(other.stderr).toContain("/etc/passwd does not list it");
});

test("connections that break below cost no byte", async () => {
  const bytes = randomBytes(24 << 20);
  let cuts = 0;
  const cutting = setInterval(() => (cuts += daemon.cut()), 40);
  try {
    const { code, stdout } = await ssh(["vm-0123abcd.vmsan", "cat"], bytes);
    expect(code).toBe(0);
    const digest = (of: Uint8Array): string => createHash("sha256").update(of).digest("hex");
    expect(digest(stdout)).toBe(digest(bytes));
    expect(cuts).toBeGreaterThan(2);
  } finally {
    clearInterval(cutting);
  }
});

test("another host key is refused without a question, as is another client's key", async () => {
  const known = join(daemon.dir, "ssh/known_hosts");
  const before = await readFile(known, "utf8");
  const another = `ssh-ed25519 ${before.split(" ")[2]?.trim().replace(/.{4}$/, "AAAA")}`;
  await writeFile(known, `vmsan-vm-0123abcd ${another}\n`);
  const refused = await ssh(["vm-0123abcd.vmsan", "true"]);
  await writeFile(known, before);
  expect(refused.code).toBe(255);
  expect(refused.stderr).toContain("Host key verification failed");

  const key = join(daemon.dir, "other");
  await call("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", key]);
  await chmod(key, 0o600);
  const own = (await readFile(config, "utf8")).replace(/IdentityFile .*/, `IdentityFile ${key}`);
  await writeFile(`${config}.other`, own);
  const unknown = await call("ssh", ["-F", `${config}.other`, "vm-0123abcd.vmsan", "true"]);
  expect(unknown.code).toBe(255);
  expect(unknown.stderr).toContain("Permission denied (publickey)");
});

/** What a program has printed once that is in it; it goes on, and what follows is dropped. */
async function heard(output: Readable, what: RegExp): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let said = "";
  output.on("data", (part: Buffer) => {
    if (what.test(said)) return;
    said += part.toString("latin1");
    if (what.test(said)) resolve(said);
  });
  return await promise;
}

/** What a server behind a SOCKS proxy of this host says, by its name there. */
async function throughSocks(proxy: number, port: number): Promise<string> {
  const socket = connect(proxy, "127.0.0.1");
  const parts = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  const next = async (): Promise<Buffer> => (await parts.next()).value as Buffer;
  // SOCKS 5 without a password, to a name and a port.
  socket.write(Buffer.from([5, 1, 0]));
  expect([...(await next())]).toEqual([5, 0]);
  const name = Buffer.from("localhost");
  const request = [5, 1, 0, 3, name.length, ...name, port >> 8, port & 255];
  socket.write(Buffer.from(request));
  expect((await next())[1]).toBe(0);
  socket.end("GET / HTTP/1.0\r\n\r\n");
  let text = "";
  for (let part = await parts.next(); part.done !== true; part = await parts.next())
    text += part.value.toString();
  return text.split("\r\n\r\n")[1] ?? "";
}

test("an editor's way in: a long script by standard input, then its server through the same connection", async () => {
  const proxy = await freePort();
  // As editors do: no terminal, a dynamic forwarding, a shell that reads what it is to do, and a mark for each step.
  const args = ["-F", config, "-T", "-D", `127.0.0.1:${proxy}`, "vm-0123abcd.vmsan", "sh"];
  const env = { ...process.env, VMSAN_DIR: daemon.dir, VMSAN_URL: "" };
  const editor = spawn("ssh", args, { env, stdio: ["pipe", "pipe", "inherit"] });
  try {
    const padding = `: '${"x".repeat(70)}'\n`.repeat(4_000);
    const server = `require("http").createServer((q, r) => r.end("served behind the connection")).listen(0, "127.0.0.1", function () { console.log("listening=" + this.address().port + "=") })`;
    // The script is read to its end before its server's input: the shell stays as long as the connection does.
    editor.stdin.write(
      `${padding}echo mark-1\nexec '${process.execPath}' -e '${server}' </dev/null\n`,
    );
    const said = await heard(editor.stdout, /listening=\d+=/);
    expect(said).toMatch(/^mark-1\n/);
    const port = Number(/listening=(\d+)=/.exec(said)?.[1]);
    const answers = await Promise.all(
      Array.from({ length: 5 }, async () => await throughSocks(proxy, port)),
    );
    expect(answers).toEqual(answers.map(() => "served behind the connection"));
  } finally {
    editor.kill();
  }
});

test("a client that is killed in the middle of bytes takes its command along, and the next one is served", async () => {
  const args = ["-F", config, "vm-0123abcd.vmsan", "echo $$; exec cat"];
  const env = { ...process.env, VMSAN_DIR: daemon.dir, VMSAN_URL: "" };
  const client = spawn("ssh", args, { env, stdio: ["pipe", "pipe", "inherit"] });
  client.stdin.on("error", () => undefined);
  const pid = Number((await heard(client.stdout, /\n/)).split("\n", 1)[0]);
  const bytes = randomBytes(1 << 20);
  await new Promise((done) => client.stdin.write(bytes, done));
  client.kill("SIGKILL");
  // Its guest is this host: the command is one of its processes.
  await vi.waitFor(() => expect(existsSync(`/proc/${pid}`)).toBe(false), { timeout: 60_000 });
  expect((await ssh(["vm-0123abcd.vmsan", "echo next"])).stdout.toString()).toBe("next\n");
});
