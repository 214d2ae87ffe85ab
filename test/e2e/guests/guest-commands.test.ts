/** exec, detached commands, copies and ports as a user types them, in a real guest. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import * as fs from "node:fs";
import { createConnection, createServer } from "node:net";
import type { AddressInfo, Server } from "node:net";
import { dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import { describe, expect, test } from "vitest";
import { booted, installation, temporary } from "../../fixtures/ladder.ts";
import { freePort } from "../../fixtures/ports.ts";
import { errorCode, vmsan, vmsanBin, vmsanJson, vmsanOk } from "../support.ts";

const here = installation("base");
const work = temporary();
booted(here, { memory: 256, name: "box" });

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
const environment = (): NodeJS.ProcessEnv => ({
  ...process.env,
  VMSAN_DIR: here.dir,
  PATH: `${dirname(vmsanBin)}:${process.env["PATH"]}`,
});

/** A line of bash with vmsan in its PATH; killed after a minute. */
async function bash(script: string): Promise<{ code: number | null; out: string; err: string }> {
  const child = spawn("timeout", ["-k", "1", "60", "bash", "-c", script], {
    env: environment(),
    cwd: work.path,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [out, err, code] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise<number | null>((resolve) => child.on("close", resolve)),
  ]);
  return { code, out, err };
}

/** A vmsan that goes on; `see` waits for text on its outputs. */
function session(args: string[]): {
  child: ChildProcess;
  see: (wanted: string) => Promise<string>;
  ended: Promise<number | null>;
} {
  const child = spawn(vmsanBin, args, { env: environment(), stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  let wake = (): void => undefined;
  let over = false;
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      said += chunk.toString();
      wake();
    });
  }
  const ended = new Promise<number | null>((resolve) => {
    child.on("close", (code) => {
      over = true;
      wake();
      resolve(code);
    });
  });
  return {
    child,
    ended,
    see: async (wanted) => {
      while (!said.includes(wanted)) {
        if (over) throw new Error(`ended without ${JSON.stringify(wanted)}: ${said}`);
        await new Promise<void>((resolve) => (wake = resolve));
      }
      return said;
    },
  };
}

const running = async (): Promise<string[]> => {
  const { commands } = await vmsanJson<{ commands: { running: boolean; argv: string[] }[] }>(
    ["ps", "box"],
    here,
  );
  return commands.filter((one) => one.running).map(({ argv }) => argv.join(" "));
};

describe("exec never hangs, whatever its descriptors are", () => {
  test.each([
    [
      "input that never ends",
      "exec 3< <(exec sleep 99); vmsan exec box echo hi <&3; kill $!",
      "hi\n",
      0,
    ],
    ["a fifo that nobody writes", "mkfifo p; exec 3<>p; vmsan exec box echo hi <&3", "hi\n", 0],
    ["/dev/null", "vmsan exec box cat </dev/null", "", 0],
    ["closed input", "vmsan exec box cat <&-", "", 0],
    ["closed output", "vmsan exec box sh -c 'echo a; exit 4' >&-", "", 4],
    ["all closed", "vmsan exec box sh -c 'exit 5' <&- >&- 2>&-", "", 5],
    ["a file", "printf 'a\\0b' >f; vmsan exec box wc -c <f", "3\n", 0],
    ["late input", "(sleep 1; echo late) | vmsan exec box cat", "late\n", 0],
    [
      "a full disk",
      "vmsan exec box echo hi >/dev/full 2>err; echo $?; grep -c ERR_OUTPUT err",
      "1\n1\n",
      0,
    ],
    [
      "a full disk while the command writes",
      "vmsan exec box seq 1 200000 >/dev/full 2>err; echo $?; grep -c ERR_OUTPUT err",
      "1\n1\n",
      0,
    ],
    [
      "bytes that are no text, by both clients",
      "for c in '' node; do VMSAN_CLIENT=$c vmsan exec -e X=$'\\xffB' box sh -c 'printf %s \"$X$1\"' sh $'\\xfeA' | od -An -tx1; done",
      " ff 42 fe 41\n ff 42 fe 41\n",
      0,
    ],
    [
      "a full disk, by the other client",
      "VMSAN_CLIENT=node vmsan exec box echo hi >/dev/full 2>err; echo $?; grep -c ERR_OUTPUT err",
      "1\n1\n",
      0,
    ],
    ["more input than is read", "yes | vmsan exec box head -c 2", "y\n", 0],
    [
      "a reader that leaves",
      'vmsan exec box yes | head -n 1; echo "${PIPESTATUS[0]}"',
      "y\n141\n",
      0,
    ],
  ])("%s", async (_name, script, out, code) => {
    expect(await bash(script)).toMatchObject({ out, code });
  });

  test("and none of them goes on in the guest", async () => {
    await expect.poll(running, { timeout: 20_000 }).toEqual([]);
  });
});

test("exec --json has everything in one object", async () => {
  const reply = await vmsan(["exec", "--json", "box", "sh", "-c", "echo a; echo b >&2; exit 3"], {
    dir: here.dir,
  });
  expect(reply.code).toBe(3);
  expect(JSON.parse(reply.stdout.toString())).toMatchObject({
    exitCode: 3,
    signal: null,
    timedOut: false,
    oomKilled: false,
    stdout: "a\n",
    stderr: "b\n",
  });
  expect(await vmsanJson(["exec", "box", "printf", "\\377\\0"], here)).toMatchObject({
    encoding: "base64",
    stdout: Buffer.from([255, 0]).toString("base64"),
  });
});

test("the first interrupt is the command's, the second one kills all of it", async () => {
  const script = "trap 'echo got' INT; echo ready; while :; do sleep 0.1; done";
  const { child, see, ended } = session(["exec", "box", "sh", "-c", script]);
  await see("ready");
  child.kill("SIGINT");
  await see("got");
  child.kill("SIGINT");
  expect(await ended).toBe(137);
});

describe("detached commands", () => {
  const start = async (...argv: string[]): Promise<string> =>
    (await vmsanOk(["exec", "-d", "box", ...argv], here)).trim();

  test("are listed, awaited, and say what they said", async () => {
    const id = await start("sh", "-c", "seq 1 100; echo err >&2; exit 6");
    expect(id).toMatch(/^[0-9a-f]{16}$/);
    expect((await vmsan(["wait", "box", id], here)).code).toBe(6);
    const logs = await vmsan(["logs", "box", id], here);
    expect(logs.stdout.toString()).toBe(
      Array.from({ length: 100 }, (_, i) => `${i + 1}\n`).join(""),
    );
    expect(logs.stderr).toBe("err\n");
    expect(await vmsanOk(["logs", "box", id, "--tail", "2"], here)).toBe("99\n100\n");
    expect(await vmsanJson(["logs", "box", id], here)).toMatchObject({ stderr: "err\n" });
    expect(await vmsanOk(["logs", "box", id, "--since", "1h"], here)).toContain("100\n");
    expect(await vmsanOk(["logs", "box", id, "--since", "2999-01-01"], here)).toBe("");
    expect(await vmsanOk(["ps", "box"], here)).toMatch(new RegExp(`^${id} .*exited 6`, "m"));
  });

  test("are followed while they run, and killed with all they started", async () => {
    const id = await start("sh", "-c", "echo one; sleep 0.5; echo two; sleep 98771 & sleep 98771");
    const { see, ended } = session(["logs", "box", id, "-f"]);
    await see("one\ntwo\n");
    expect(await vmsanOk(["logs", "box", id], here)).toBe("one\ntwo\n");
    expect(await running()).toEqual([expect.stringContaining("sleep 98771")]);
    await vmsanOk(["kill", "box", id, "-s", "KILL"], here);
    expect(await ended).toBe(0);
    expect((await vmsan(["wait", "box", id], here)).code).toBe(137);
    const left = await vmsan(["exec", "box", "pgrep", "-f", "sleep 9877[1]"], here);
    expect([left.code, left.stdout.toString()]).toEqual([1, ""]);
    expect(await running()).toEqual([]);
  });

  test("what is not there is an error", async () => {
    expect(await errorCode(["logs", "box", "0123456789abcdef"], here)).toBe(
      "ERR_AGENT_STREAM_NOT_FOUND",
    );
    expect(await errorCode(["wait", "box", "nonsense"], here)).toBe("ERR_VALIDATION_FLAGS");
    expect(await errorCode(["kill", "box", "0123456789abcdef", "-s", "NO"], here)).toMatch(
      /^ERR_VALIDATION_/,
    );
  });
});

describe("copies", () => {
  test("a tree goes up and comes back as it was", async () => {
    const top = join(work.path, "tree");
    fs.mkdirSync(join(top, "sub/empty"), { recursive: true });
    fs.writeFileSync(join(top, "sub/exe"), randomBytes(300_000), { mode: 0o755 });
    fs.writeFileSync(join(top, "-rf *\n"), "odd name", { mode: 0o600 });
    fs.symlinkSync("/nowhere", join(top, "dangling"));
    fs.linkSync(join(top, "sub/exe"), join(top, "hard"));
    const holes = fs.openSync(join(top, "sparse"), "w");
    fs.writeSync(holes, "end", 50_000_000);
    fs.closeSync(holes);
    await vmsanOk(["upload", "box", top, "-d", "/tmp/"], here);
    await vmsanOk(["download", "box", "/tmp/tree", join(work.path, "back")], here);
    const compared = await bash(`
      diff -r --no-dereference tree back &&
      cmp <(cd tree; find . -printf '%p %y %m %l %n\\n' | sort) <(cd back; find . -printf '%p %y %m %l %n\\n' | sort) &&
      test "$(du -k back/sparse | cut -f1)" -lt 1000`);
    expect(compared).toEqual({ code: 0, out: "", err: "" });
  });

  test("to standard output and from standard input", async () => {
    const bytes = randomBytes(1_000_000);
    await vmsanOk(["upload", "box", "-", "-d", "/tmp/one"], { dir: here.dir, input: bytes });
    const down = await vmsan(["download", "box", "/tmp/one", "-"], here);
    expect([down.code, sha256(down.stdout)]).toEqual([0, sha256(bytes)]);
    const again = await vmsan(["cp", "box:/tmp/one", "-"], here);
    expect(sha256(again.stdout)).toBe(sha256(bytes));
    await vmsanOk(["cp", "-", "box:/tmp/two"], { dir: here.dir, input: "two" });
    expect(await vmsanOk(["exec", "box", "cat", "/tmp/two"], here)).toBe("two");
    expect((await bash("vmsan download box /tmp/one - | head -c 3 | wc -c")).out).toBe("3\n");
  });

  test("belong to whom they should, and fail without leaving anything", async () => {
    fs.writeFileSync(join(work.path, "mine"), "mine");
    await vmsanOk(
      ["upload", "box", join(work.path, "mine"), "-d", "/tmp/theirs", "-u", "1234:5678"],
      {
        dir: here.dir,
      },
    );
    expect(await vmsanOk(["exec", "box", "stat", "-c", "%u:%g", "/tmp/theirs"], here)).toBe(
      "1234:5678\n",
    );
    for (const args of [
      ["upload", "box", join(work.path, "none"), "-d", "/tmp/x"],
      ["upload", "box", join(work.path, "mine"), "-d", "/proc/x"],
      ["upload", "box", join(work.path, "mine"), "-d", "/root/x", "-u", "1234"],
      ["download", "box", "/none", join(work.path, "x")],
      ["download", "box", "/etc/shadow", join(work.path, "x"), "-u", "1234"],
      ["download", "box", "/tmp/theirs", join(work.path, "no/such/dir/x")],
    ]) {
      expect(await errorCode(args, here), args.join(" ")).toMatch(/^ERR_AGENT_/);
    }
    expect(fs.existsSync(join(work.path, "x"))).toBe(false);
    expect(fs.readdirSync(work.path).filter((name) => name.startsWith("."))).toEqual([]);
    expect(
      await vmsanOk(["exec", "--sudo", "box", "find", "/tmp", "/root", "-name", "*vmsan*"], {
        dir: here.dir,
      }),
    ).toBe("");
  });
});

describe("ports", () => {
  /** What a connection says until its end. */
  const talk = async (port: number, say: string): Promise<string> => {
    const socket = createConnection(port, "127.0.0.1");
    socket.end(say);
    return await text(socket);
  };
  const listen = async (server: Server): Promise<number> => {
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return (server.address() as AddressInfo).port;
  };
  const serving = `
    use IO::Socket::INET; $| = 1;
    my $l = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 7777, Listen => 5, ReuseAddr => 1);
    print "up\\n";
    while (my $c = $l->accept) { local $/; my $all = <$c>; print $c scalar reverse $all; close $c }`;

  test("of the guest are reached from here, with half-closes", async () => {
    const server = session(["exec", "box", "perl", "-e", serving]);
    await server.see("up");
    const port = await freePort();
    const forward = session(["port-forward", "box", `${port}:7777`]);
    await forward.see(`127.0.0.1:${port} -> 127.0.0.1:7777`);
    expect(await talk(port, "abc")).toBe("cba");
    const big = "x".repeat(300_000);
    expect(await Promise.all([talk(port, big), talk(port, "one"), talk(port, "two")])).toEqual([
      big,
      "eno",
      "owt",
    ]);
    forward.child.kill("SIGINT");
    expect(await forward.ended).toBe(130);
    await expect(talk(port, "abc")).rejects.toThrow("ECONNREFUSED");
    server.child.kill("SIGTERM");
    expect(await server.ended).toBe(143);
  });

  test("of this host are reached from the guest", async () => {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      void text(socket).then((said) => socket.end(said.toUpperCase()));
    });
    const port = await listen(server);
    const forward = session(["port-forward", "box", "-R", `${port}:7778`]);
    await forward.see("127.0.0.1:7778 ->");
    const client = `
      use IO::Socket::INET;
      my $c = IO::Socket::INET->new("127.0.0.1:7778") or die; print $c "hello"; shutdown $c, 1; print <$c>`;
    expect(await vmsanOk(["exec", "box", "perl", "-e", client], here)).toBe("HELLO");
    forward.child.kill("SIGTERM");
    expect(await forward.ended).toBe(143);
    expect((await vmsan(["exec", "box", "perl", "-e", client], here)).code).not.toBe(0);
    server.close();
    await expect.poll(running, { timeout: 20_000 }).toEqual([]);
  });
});

test("--init boots the image's own init, with the agent beside it", async () => {
  const tree = join(work.path, "init");
  for (const name of ["bin", "sbin", "etc", "tmp"])
    fs.mkdirSync(join(tree, name), { recursive: true });
  fs.copyFileSync("/bin/busybox", join(tree, "bin/busybox"));
  for (const name of ["sh", "cat", "id", "sleep"])
    fs.symlinkSync("busybox", join(tree, "bin", name));
  fs.symlinkSync("../bin/busybox", join(tree, "sbin/init"));
  fs.writeFileSync(
    join(tree, "etc/inittab"),
    '::sysinit:/bin/sh -c "echo ran >/tmp/mark"\n::respawn:/bin/sleep 1000\n',
  );
  expect((await bash("tar -C init -cf init.tar .")).code).toBe(0);
  const image = `rootfs:${join(work.path, "init.tar")}`;
  await vmsanOk(["create", "--from-image", image, "--init", "--name", "init", "--memory", "256"], {
    dir: here.dir,
  });
  await expect
    .poll(async () => (await vmsan(["exec", "init", "cat", "/tmp/mark"], here)).stdout.toString(), {
      timeout: 30_000,
    })
    .toBe("ran\n");
  expect(await vmsanOk(["exec", "init", "cat", "/proc/1/comm"], here)).toBe("init\n");
  // A number that no passwd knows: there is none. The group given is the only one, as in Docker.
  expect(await vmsanOk(["exec", "-u", "1234:99", "init", "id"], here)).toBe(
    "uid=1234 gid=99 groups=99\n",
  );
  const limited = ["exec", "--timeout", "1s", "init", "sh", "-c", "sleep 98781 & sleep 98781"];
  expect((await vmsan(limited, here)).code).toBe(124);
  expect(
    await vmsanOk(
      ["exec", "init", "sh", "-c", "cat /proc/[0-9]*/cmdline | /bin/busybox grep -c 9878[1] || :"],
      {
        dir: here.dir,
      },
    ),
  ).toBe("0\n");
  await vmsanOk(["stop", "init"], here);
  await vmsanOk(["rm", "init"], here);
});
