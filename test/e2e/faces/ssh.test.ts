/** OpenSSH's programs, and those that build on them, in a real guest that has no sshd. */
import { execFile, execFileSync, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createConnection, createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { booted, installation } from "../../fixtures/ladder.ts";
import { pythonWith } from "../../fixtures/venv.ts";
import { vmsanOk } from "../support.ts";

const place = { work: "", config: "", host: "" };
const made = installation("base");
const box = booted(made, { runtime: "base", driver: "qemu", name: "boxed" });

/** One connection for all that follows, as people keep it. */
beforeAll(async () => {
  // Short: a path of a control socket has at most 108 bytes.
  place.work = await mkdtemp(join(tmpdir(), "vs-"));
  place.config = join(place.work, "config");
  place.host = "boxed.vmsan";
  const block = await vmsanOk(["ssh-config", "boxed"], { dir: made.dir });
  const kept = `  ControlPath ${place.work}/%C\n  ControlMaster auto\n  ControlPersist 600\n`;
  await writeFile(place.config, `${block.trimEnd()}\n${kept}`);
  return async () => {
    await call("ssh", ["-F", place.config, "-O", "exit", place.host]);
    await rm(place.work, { recursive: true, force: true });
  };
});

interface Called {
  code: number;
  out: string;
  err: string;
}

interface CallOptions {
  input?: string | Uint8Array;
  env?: Record<string, string>;
  cwd?: string;
  /** Milliseconds until it is given up. */
  timeout?: number;
}

/** Run a program of this host to its end. */
async function call(program: string, args: string[], options: CallOptions = {}): Promise<Called> {
  const { input = "", env = {}, cwd = place.work, timeout = 200_000 } = options;
  return await new Promise((resolve) => {
    const child = execFile(
      program,
      args,
      { env: { ...process.env, ...env }, cwd, timeout, maxBuffer: 1 << 28 },
      (error, out, err) => {
        const code = error === null ? 0 : typeof error.code === "number" ? error.code : 255;
        resolve({ code, out, err });
      },
    );
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(input);
  });
}

async function ok(program: string, args: string[], options?: CallOptions): Promise<string> {
  const { code, out, err } = await call(program, args, options);
  if (code !== 0) throw new Error(`${program} ${args.join(" ")}: status ${code}\n${out}${err}`);
  return out;
}

/** A command in the guest, by ssh. */
const ssh = async (command: string, options?: CallOptions, flags: string[] = []): Promise<string> =>
  await ok("ssh", ["-F", place.config, ...flags, place.host, command], options);

const digest = (of: Uint8Array): string => createHash("sha256").update(of).digest("hex");

/** A program of this host with its libraries, in /opt/tools of the guest and on PATH there. */
async function bring(program: string): Promise<void> {
  const dir = join(place.work, "tools");
  await mkdir(dir, { recursive: true });
  const path = execFileSync("which", [program], { encoding: "utf8" }).trim();
  const libraries = execFileSync("ldd", [path], { encoding: "utf8" }).match(/\/\S+/g) ?? [];
  for (const file of [path, ...libraries]) await copyFile(file, join(dir, basename(file)));
  const loader = libraries.map((file) => basename(file)).find((file) => file.startsWith("ld-"));
  const script = `#!/bin/sh\nexec /opt/tools/${loader} --library-path /opt/tools /opt/tools/${program} "$@"\n`;
  await box.vm.upload([dir], "/opt/tools", { user: "root" });
  const install = `cat >/usr/local/bin/${program}; chmod 755 /usr/local/bin/${program}`;
  await box.vm.exec(["sh", "-c", install], { user: "root", input: script });
}

test("commands with their status, terminals, users, over a connection that is kept", async () => {
  const first = await call("ssh", ["-F", place.config, place.host, "cat; exit 7"], {
    input: "typed",
  });
  expect(first).toEqual({ code: 7, out: "typed", err: "" });
  expect(await ssh("id -un; pwd; echo $HOME")).toBe("ubuntu\n/home/ubuntu\n/home/ubuntu\n");
  expect((await call("ssh", ["-F", place.config, "-O", "check", place.host])).code).toBe(0);
  // Without the master: it would lend this client its own terminal's modes.
  const terminal = ["-tt", "-o", "ControlPath=none"];
  expect(await ssh("tty; stty -a | grep -o -w -- -*echo", {}, terminal)).toBe(
    "/dev/pts/0\r\necho\r\n",
  );
  expect(await ok("ssh", ["-F", place.config, `root@${place.host}`, "id -u"])).toBe("0\n");
  expect(await vmsanOk(["ssh", "root@boxed", "id", "-u"], { dir: made.dir })).toBe("0\n");
  // Something that a command leaves behind does not hold it up.
  expect(await ssh("sleep 600 & echo ended")).toBe("ended\n");
  await ssh("pkill -x sleep");
});

test("files: scp, sftp, rsync, git", async () => {
  const bytes = randomBytes(10 << 20);
  await writeFile(join(place.work, "big"), bytes);
  const remote = (path: string): string => `${place.host}:${path}`;
  await ok("scp", ["-q", "-F", place.config, "big", remote("up")]);
  expect(await ssh("sha256sum <up")).toContain(digest(bytes));
  await ok("scp", ["-q", "-F", place.config, remote("~/up"), "down"]);
  expect(digest(await readFile(join(place.work, "down")))).toBe(digest(bytes));

  const listed = await ok("sftp", ["-q", "-F", place.config, "-b", "-", place.host], {
    input:
      "mkdir sub\nrename up sub/moved\nchmod 600 sub/moved\nsymlink moved sub/link\nls -l sub\n",
  });
  expect(listed).toMatch(/-rw-------.* 10485760 .*moved/);

  await mkdir(join(place.work, "tree/deep/er"), { recursive: true });
  await writeFile(join(place.work, "tree/deep/er/file"), "content");
  await bring("rsync");
  const by = ["-e", `ssh -F ${place.config}`];
  await ok("rsync", ["-a", ...by, "tree/", remote("tree/")]);
  await ok("rsync", ["-ac", ...by, remote("tree/"), "back/"]);
  expect(await readFile(join(place.work, "back/deep/er/file"), "utf8")).toBe("content");

  const git = { env: { GIT_SSH_COMMAND: `ssh -F ${place.config}` } };
  await ssh("git init -q --bare -b main repo.git");
  await ok("git", ["init", "-q", "-b", "main", "mine"]);
  const who = ["-c", "user.name=a", "-c", "user.email=a@b"];
  await ok("git", ["-C", "mine", ...who, "commit", "-q", "--allow-empty", "-m", "one"]);
  await ok("git", ["-C", "mine", "push", "-q", remote("repo.git"), "main"], git);
  await ok("git", ["clone", "-q", remote("repo.git"), "cloned"], git);
  expect(await ok("git", ["-C", "cloned", "log", "--format=%s"])).toBe("one\n");
}, 600_000);

const mounts = existsSync("/dev/fuse") && existsSync("/usr/bin/sshfs") && process.getuid?.() === 0;
test.skipIf(!mounts)("sshfs (skipped without it, /dev/fuse or root)", async () => {
  const at = join(place.work, "mounted");
  await mkdir(at);
  await ssh("echo by ssh >seen");
  await ok("sshfs", ["-F", place.config, `${place.host}:`, at]);
  try {
    expect(await readFile(join(at, "seen"), "utf8")).toBe("by ssh\n");
    await writeFile(join(at, "new"), "by sshfs");
  } finally {
    await ok("fusermount3", ["-u", at]);
  }
  expect(await ssh("cat new")).toBe("by sshfs");
});

/** What a port of the guest answers, by way of SOCKS on a socket of this host (version 5, no login). */
async function asked(path: string, port: number, question: string): Promise<string> {
  const socket = createConnection(path);
  const read = async (): Promise<Buffer> =>
    await new Promise((resolve) => socket.once("data", resolve));
  socket.write(Buffer.from([5, 1, 0]));
  await read();
  socket.write(Buffer.from([5, 1, 0, 1, 127, 0, 0, 1, port >> 8, port & 255]));
  await read();
  let text = "";
  socket.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
  socket.write(question);
  await new Promise((resolve) => socket.once("end", resolve));
  socket.destroy();
  return text;
}

/** All that the other end sends. */
async function heard(path: string): Promise<string> {
  return await new Promise((resolve, reject) => {
    let text = "";
    const socket = createConnection(path);
    socket.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
    socket.on("error", reject).on("end", () => resolve(text));
  });
}

const bulk = process.env["VMSAN_TEST_SSH_BULK"] === "1";
if (!bulk)
  process.stderr.write(
    "skipped: 1 GB through ssh and ansible take minutes in an emulated guest; VMSAN_TEST_SSH_BULK=1 adds them\n",
  );
test.skipIf(!bulk)(
  "1 GB each way, and a session cut in the middle",
  async () => {
    const run = async (command: string): Promise<string> =>
      await ok("sh", ["-c", command], { timeout: 3_000_000 });
    const remote = `ssh -F ${place.config} ${place.host}`;
    const wanted = await run("head -c 1000000000 /dev/zero | sha256sum");
    expect(await run(`head -c 1000000000 /dev/zero | ${remote} sha256sum`)).toBe(wanted);
    expect(await run(`${remote} head -c 1000000000 /dev/zero | sha256sum`)).toBe(wanted);
    const endless = "yes cut-in-the-middle";
    await run(`${remote} -o ControlPath=none ${endless} & sleep 5; kill -9 $!`).catch(() => "");
    await expect
      .poll(async () => await ssh(`pgrep -xc yes || true`), { timeout: 60_000 })
      .toBe("0\n");
  },
  6_000_000,
);

test.skipIf(!bulk)(
  "ansible: ping, copy by sftp and scp, as root, facts by one process",
  async () => {
    const python = await pythonWith("ansible");
    const vm = await made.vmsan.create({ runtime: "e2b", name: "managed", driver: "qemu" });
    const block = await vmsanOk(["ssh-config", "managed"], { dir: made.dir });
    await writeFile(join(place.work, "managed"), block);
    await writeFile(join(place.work, "inventory"), "managed.vmsan\n");
    const env = {
      HOME: place.work,
      ANSIBLE_SSH_ARGS: `-F ${place.work}/managed`,
      // Ansible's own 10 s to connect are too few for an emulated guest of a busy host.
      ANSIBLE_TIMEOUT: "180",
    };
    const ansible = async (module: string, words: string[], more = {}): Promise<string> =>
      await ok(join(python, "../ansible"), ["-i", "inventory", "all", "-m", module, ...words], {
        env: { ...env, ...more },
        timeout: 900_000,
      });
    expect(await ansible("ping", [])).toContain('"ping": "pong"');
    await ansible("copy", ["-a", "src=managed dest=/tmp/by-sftp mode=0640"]);
    const scp = { ANSIBLE_SSH_TRANSFER_METHOD: "scp" };
    await ansible("copy", ["-a", "src=managed dest=/tmp/by-scp"], scp);
    await ansible("copy", ["-b", "-a", "content=root dest=/etc/by-root mode=0600"]);
    const facts = ["-a", "filter=ansible_distribution"];
    expect(await ansible("setup", facts, { ANSIBLE_PIPELINING: "1" })).toContain('"Debian"');
    const look = "stat -c '%a %U' /tmp/by-sftp /etc/by-root; cat /tmp/by-sftp /tmp/by-scp";
    const { stdout } = await vm.exec(["sh", "-c", look]);
    expect(stdout.toString()).toBe(`640 user\n600 root\n${block}${block}`);
    await vm.remove();
  },
  6_000_000,
);

/** What an editor's remote mode sends to a shell: a server is left behind, and where it listens is said. */
const BOOTSTRAP = `
set -eu
echo "id: running"
mkdir -p "$HOME/.editor-server"; cd "$HOME/.editor-server"
exec 9>lock; flock -w 60 9
cat >server.pl <<'END'
use IO::Socket::INET; $| = 1;
my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 0, Listen => 8) or die;
print "listening on ", $server->sockport, "\\n";
while (my $client = $server->accept) { my $line = <$client>; print $client "server: $line"; close $client }
END
: >log
nohup perl server.pl >log 2>&1 9>&- </dev/null &
until port=$(grep -o '[0-9]*$' log); do sleep 0.1; done
echo "port==$port== arch==$(uname -m)=="
echo "id: end"
exec sleep 600
`;

test("an editor's remote mode: a script on standard input, SOCKS, sockets both ways, variables", async () => {
  const alone = ["-F", place.config, "-o", "ControlPath=none"];
  const socks = join(place.work, "socks");
  const editor = spawn("ssh", [
    ...alone,
    "-T",
    "-D",
    socks,
    "-o",
    "SetEnv=MODE=editor",
    place.host,
    "bash",
  ]);
  try {
    let said = "";
    const ready = new Promise<void>((resolve, reject) => {
      editor.once("close", () => reject(new Error(said)));
      editor.stdout.on("data", (chunk: Buffer) => {
        said += chunk.toString();
        if (said.includes("id: end\n")) resolve();
      });
    });
    editor.stdin.end(BOOTSTRAP);
    await ready;
    const port = Number(/port==(\d+)==/.exec(said)?.[1]);
    const ask =
      "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new($ARGV[0]); print $s qq(hey\\n); print <$s>'";
    expect(await ssh(`${ask} 127.0.0.1:${port}`)).toBe("server: hey\n");
    expect(await asked(socks, port, "by SOCKS\n")).toBe("server: by SOCKS\n");
  } finally {
    editor.kill();
  }
  // What was left behind outlives the connection.
  expect(await ssh("cat .editor-server/log; pkill -f '[s]erver.pl' && echo was there")).toMatch(
    /^listening on \d+\nwas there\n$/,
  );

  // A socket of the guest as one of the host, and the other way round.
  const [here, there] = [join(place.work, "of-the-host"), "/tmp/theirs"];
  const listener = createServer((socket) => socket.end("from the host"));
  await new Promise<void>((resolve, reject) => {
    listener.once("error", reject).listen(here, resolve);
  });
  const back = join(place.work, "back-again");
  const forwards = [
    "-o",
    "ExitOnForwardFailure=yes",
    "-R",
    `${there}:${here}`,
    "-L",
    `${back}:${there}`,
  ];
  const tunnel = spawn("ssh", [...alone, ...forwards, place.host, "echo up; cat"]);
  try {
    await new Promise((resolve, reject) => {
      tunnel.once("close", () => reject(new Error("the tunnel ended")));
      tunnel.stdout.once("data", resolve);
    });
    expect(await ssh(`stat -c '%U %a' ${there}`)).toBe("ubuntu 600\n");
    expect(await heard(back)).toBe("from the host");
  } finally {
    const ended = new Promise((resolve) => tunnel.once("close", resolve));
    tunnel.stdin.end();
    await ended;
    listener.close();
  }
  expect(await ssh(`test -e ${there} || echo gone`)).toBe("gone\n");

  expect(await ssh("echo $MODE", {}, ["-o", "ControlPath=none", "-o", "SetEnv=MODE=one"])).toBe(
    "one\n",
  );
  // Killed by a signal: OpenSSH's client has one status for that.
  expect((await call("ssh", [...alone, place.host, "kill -9 $$"])).code).toBe(255);
  // A connection by way of the guest: what is behind it is reached from there, not from here.
  const way = await call("ssh", [...alone, "-W", "127.0.0.1:1", place.host]);
  expect(way.err).toContain("connection refused");
});

test("what is half there goes on: sftp's reput and reget, rsync --delete", async () => {
  const bytes = randomBytes(3 << 20);
  await writeFile(join(place.work, "whole"), bytes);
  await writeFile(join(place.work, "half"), bytes.subarray(0, 1 << 20));
  await ok("scp", ["-q", "-F", place.config, "half", `${place.host}:resumed`]);
  const input = "reput whole resumed\nreget resumed half\n";
  await ok("sftp", ["-q", "-F", place.config, "-b", "-", place.host], { input });
  expect(await ssh("sha256sum <resumed")).toContain(digest(bytes));
  expect(digest(await readFile(join(place.work, "half")))).toBe(digest(bytes));

  await mkdir(join(place.work, "kept"));
  await writeFile(join(place.work, "kept/stays"), "");
  await ssh("mkdir -p kept; touch kept/goes");
  const by = ["-e", `ssh -F ${place.config}`];
  await ok("rsync", ["-a", "--delete", ...by, "kept/", `${place.host}:kept/`]);
  expect(await ssh("ls kept")).toBe("stays\n");
});

test("ports both ways, the client's agent; nothing listens for ssh", async () => {
  const forward = async (flag: string, what: string): Promise<string> =>
    await ok("ssh", ["-F", place.config, "-O", "forward", flag, what, place.host]);

  const listener = createServer((socket) => socket.end("from the host"));
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const local = (listener.address() as AddressInfo).port;
  // The guest's port reaches the host's listener, and a socket of the host that port.
  const remote = (await forward("-R", `0:127.0.0.1:${local}`)).trim();
  const here = join(place.work, "here");
  await forward("-L", `${here}:127.0.0.1:${remote}`);
  expect(await heard(here)).toBe("from the host");
  await new Promise((resolve) => listener.close(resolve));
  await ok("ssh", ["-F", place.config, "-O", "cancel", "-R", `0:127.0.0.1:${local}`, place.host]);

  const agentSocket = join(place.work, "agent");
  const agent = spawn("ssh-agent", ["-D", "-a", agentSocket], { stdio: "ignore" });
  try {
    const key = join(place.work, "key");
    await ok("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "lent", "-f", key]);
    await chmod(key, 0o600);
    while (!existsSync(agentSocket)) await new Promise((resolve) => setTimeout(resolve, 20));
    const env = { SSH_AUTH_SOCK: agentSocket };
    await ok("ssh-add", ["-q", key], { env });
    const args = ["-F", place.config, "-A", "-o", "ControlPath=none", place.host];
    const session = spawn("ssh", [...args, "echo $SSH_AUTH_SOCK; cat"], {
      env: { ...process.env, ...env },
    });
    const [path] = await new Promise<string[]>((resolve) =>
      session.stdout.once("data", (chunk: Buffer) => resolve(chunk.toString().split("\n"))),
    );
    // Round trip: this host's client, the guest's socket, this host's agent.
    const lent = join(place.work, "lent");
    await forward("-L", `${lent}:${path}`);
    expect(await ok("ssh-add", ["-l"], { env: { SSH_AUTH_SOCK: lent } })).toContain("lent");

    const { stdout } = await box.vm.exec(["sh", "-c", "cat /proc/net/tcp /proc/net/tcp6"]);
    const listening = stdout
      .toString()
      .split("\n")
      .filter((line) => / 0A /.test(line));
    expect(listening).toEqual([]);
    const ended = new Promise((resolve) => session.once("close", resolve));
    session.stdin.end();
    await ended;
  } finally {
    agent.kill();
  }
});

test("a clone is known by another key; a VM that sleeps wakes", async () => {
  const [clone] = await made.vmsan.fork(box.id, { name: "twin" });
  if (clone === undefined) throw new Error("no clone");
  // The connection that was open goes on here, and is nobody's there.
  expect(await ssh("echo still here")).toBe("still here\n");
  const theirs = join(place.work, "twin");
  await writeFile(theirs, await vmsanOk(["ssh-config", "twin"], { dir: made.dir }));
  expect(await ok("ssh", ["-F", theirs, "twin.vmsan", "cat /proc/sys/kernel/hostname"])).toBe(
    "twin\n",
  );
  expect(await clone.sshHostKey()).not.toBe(await box.vm.sshHostKey());
  await clone.remove();

  await ok("ssh", ["-F", place.config, "-O", "exit", place.host]);
  await box.vm.suspend();
  expect(await ssh("echo awake", {}, ["-o", "ControlPath=none"])).toBe("awake\n");
});
