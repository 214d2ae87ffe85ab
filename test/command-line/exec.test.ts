/** Both clients of `vmsan exec`, `vmsan run` and `vmsan image pull`, held to the same suite, the same words and the same ends. */
import { createHash } from "node:crypto";
import { spawn } from "node:child_process";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { noise } from "../exec-cases/case.ts";
import { execSuite } from "../exec-cases/suite.ts";
import { clientEnvironment, cliStart, launcher } from "../exec-cases/cli.ts";
import type { ClientKind } from "../exec-cases/cli.ts";
import { fakeDaemon } from "../exec-cases/fake-daemon.ts";
import type { FakeDaemon } from "../exec-cases/fake-daemon.ts";

const kinds = ["native", "node"] as const;
const signals = "a user sends a client signals that it hands on, not this one";
const skip = {
  "stop and continue": signals,
  "KILL of the tree reaches grandchildren": signals,
  "… and none of them is left": signals,
  "terminal: size and TERM": "a process without a terminal asks for 24×80",
  "terminal: a new size is told": "a process without a terminal has no new size",
  "3 MB of arguments are refused with a clear error": "the host takes no more than 2 MB",
  "one argument of 200 kB is more than Linux takes": "the host takes no more either",
  "time limit: who ignores TERM gets KILL after the grace time": "the grace time is no option",
};

for (const kind of kinds) {
  execSuite(
    `vmsan exec, ${kind} client`,
    async () => {
      const daemon = await fakeDaemon();
      return { start: cliStart(kind, daemon.dir), close: daemon.close };
    },
    {
      skip,
      // A process has a status; which signal it stands for is in nobody's words.
      blind: ["signal"],
      big: 30_000_000,
      parallel: kind === "native" ? 40 : 8,
      statusStep: kind === "native" ? 16 : 64,
    },
  );
}

interface Ran {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Without what differs from time to time. */
function plain(ran: Ran): Ran {
  return { ...ran, stdout: ran.stdout.replace(/"durationMs":\d+/, '"durationMs":0') };
}

describe("one behaviour", () => {
  let daemon: FakeDaemon;
  beforeAll(async () => {
    daemon = await fakeDaemon({
      image: {
        config: {
          env: ["PATH=/usr/bin:/bin", "A=image", "B=image"],
          workingDir: "/usr",
          entrypoint: ["env", "E=entry"],
          cmd: ["sh", "-c", 'echo "$E $A $B $C"; pwd; exit 5'],
        },
      },
      defaults: { env: ["B=vm", "C=vm"] },
    });
  });
  afterAll(async () => await daemon.close());

  /** Run `vmsan exec WORD…`, or another command, to its end. */
  async function run(
    kind: ClientKind,
    words: string[],
    input = "",
    command = "exec",
  ): Promise<Ran> {
    return await runScript(kind, `exec "$0" ${command} "$@"`, words, input);
  }

  /** Run a script of which $0 is vmsan. */
  async function runScript(
    kind: ClientKind,
    script: string,
    words: string[] = [],
    input = "",
  ): Promise<Ran> {
    const child = spawn("sh", ["-c", script, launcher, ...words], {
      env: clientEnvironment(kind, daemon.dir),
      cwd: daemon.dir,
    });
    const out = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"] as const)
      child[name].on("data", (chunk: Buffer) => (out[name] += chunk.toString("latin1")));
    child.stdin.on("error", () => undefined);
    child.stdin.end(input);
    const status = await new Promise<number | null>((resolve) => child.on("close", resolve));
    return { status, ...out };
  }

  const print = ["sh", "-c", 'echo "$A $B $C $D"; pwd; cat; echo err >&2; exit 3'];
  test.each<[string, string[]]>([
    ["environment and directory of VM and image", ["vm", ...print]],
    ["the separator", ["vm", "--", ...print]],
    ["the separator twice", ["vm", "--", "--", "true"]],
    ["all options", ["-i", "-e", "D=user", "--env", "C=x=y", "-w", "/tmp", "vm", ...print]],
    ["options with =", ["--workdir=/", "--env=A=1", "--user=0:0", "vm", ...print]],
    ["--sudo", ["--sudo", "vm", "id", "-u"]],
    ["-u over --sudo", ["--sudo", "-u", "65534", "vm", "id", "-u"]],
    ["options together", ["-it", "vm", "cat"]],
    ["an option's value in its word", ["-w/tmp", "vm", "pwd"]],
    ["a time limit", ["--timeout", "1s", "vm", "sleep", "60"]],
    ["options behind the VM", ["vm", "-e", "D=1", ...print]],
    ["a name for the caller's value", ["-e", "HOME", "-e=C", "-e", "A", "vm", "env"]],
    ["options of the command", ["vm", "ls", "--version", "--json"]],
    ["options of Node.js", ["vm", "echo", "--env-file", ".env", "--experimental-config-file", "x"]],
    ["--json", ["--json", "vm", ...print]],
    ["--json and an error", ["--json", "no-such-vm", "true"]],
    ["--help", ["--help"]],
    ["--detach to nothing", ["-d", "no-such-vm", "true"]],
    ["no words", []],
    ["no command", ["vm"]],
    ["no command behind --", ["vm", "--"]],
    ["an empty word", ["vm", ""]],
    ["no such VM", ["no-such-vm", "true"]],
    ["no VM's name", ["NO/VM", "true"]],
    ["an empty name", ["", "true"]],
    ["no such option", ["--no-such", "vm", "true"]],
    ["a value for a switch", ["--sudo=yes", "vm", "true"]],
    ["an option without its value", ["-w"]],
    ["an environment without a name", ["-e", "=1", "vm", "true"]],
    ["no duration", ["--timeout", "soon", "vm", "true"]],
    ["a duration of none", ["--timeout", "0s", "vm", "true"]],
    ["a long duration", ["--timeout", "999999h", "vm", "true"]],
    ["no such command", ["vm", "no-such-command"]],
    ["a directory as a command", ["vm", "/etc"]],
    ["no such working directory", ["-w", "/no/such", "vm", "true"]],
    ["a relative working directory", ["-w", "tmp", "vm", "true"]],
    ["no such user", ["-u", "no-such-user", "vm", "true"]],
    ["-t with --json", ["-t", "--json", "vm", "true"]],
  ])("%s", async (_name, words) => {
    const both = await Promise.all(kinds.map((kind) => run(kind, words, "in\n")));
    const [native, node] = both.map(plain);
    expect(native).toEqual(node);
  });

  const show = ["sh", "-c", 'echo "$A $B $C $D $E"; pwd; cat; echo err >&2; exit 3'];
  test.each<[string, string[]]>([
    ["the image's own command", ["image"]],
    ["words", ["image", ...show]],
    ["the separator", ["image", "--", ...show]],
    ["all options", ["-i", "--rm", "-e", "D=user", "-e", "B", "-w", "/tmp", "image", ...show]],
    ["a machine", ["-m", "256", "--vcpus", "2", "--user=0:0", "image", "true"]],
    ["memory with a unit", ["--memory", "1g", "image", "true"]],
    ["no memory at all", ["--memory", "1", "image", "true"]],
    ["a time limit", ["--timeout", "1s", "image", "sleep", "60"]],
    ["options of the command", ["image", "ls", "--version", "-m", "1"]],
    ["options that `run` does not have", ["--sudo", "image", "true"]],
    ["an option of `create`", ["--label", "a=b", "image", "true"]],
    ["a registry's image", ["localhost:5000/a/b:c", "true"]],
    ["no image", ["no-such-image", "true"]],
    ["no image's name", ["NO IMAGE", "true"]],
    ["no words", []],
    ["an entrypoint", ["--entrypoint", "echo", "image", "x"]],
    ["no such command", ["--entrypoint", "", "image", "no-such-command"]],
    ["no such working directory", ["-w", "/no/such", "image", "true"]],
    ["--json", ["--json", "image", ...show]],
  ])("run: %s", async (_name, words) => {
    const both: unknown[] = [];
    for (const kind of kinds) {
      Object.assign(daemon.made, { requests: [], removed: 0 });
      const ran = plain(await run(kind, words, "in\n", "run"));
      // What is refused may be asked for by both clients, one after the other.
      const requests = new Set(daemon.made.requests.map((request) => JSON.stringify(request)));
      both.push({ ...ran, requests, removed: daemon.made.removed > 0 });
    }
    expect(both[0]).toEqual(both[1]);
  });

  test.each(kinds)("run, %s: an interrupt ends the making", async (kind) => {
    Object.assign(daemon.made, { requests: [], removed: 0 });
    const env = clientEnvironment(kind, daemon.dir);
    const child = spawn(launcher, ["run", "slow"], { env, stdio: "ignore" });
    const ended = new Promise((resolve) => child.on("close", resolve));
    await expect.poll(() => daemon.made.requests.length, { timeout: 60_000 }).toBe(1);
    child.kill("SIGINT");
    expect(await ended).toBe(130);
    expect(daemon.made.removed).toBe(1);
  });

  test.each<[string, string[]]>([
    ["an image", ["image:1"]],
    ["a registry's image", ["localhost:5000/a/b@sha256:" + "b".repeat(64)]],
    ["no image", ["no-such-image"]],
    ["no image's name", ["NO IMAGE"]],
    ["a file", ["docker-archive:missing.tar"]],
    ["no words", []],
    ["two words", ["image", "image"]],
    ["an option", ["--platform", "linux/arm64", "image"]],
    ["--json", ["--json", "image"]],
    ["--help", ["--help"]],
  ])("image pull: %s", async (_name, words) => {
    const both: unknown[] = [];
    for (const kind of kinds) {
      daemon.pulls.length = 0;
      both.push({
        ...(await run(kind, ["pull", ...words], "", "image")),
        pulls: [...daemon.pulls],
      });
    }
    expect(both[0]).toEqual(both[1]);
  });

  test.each(kinds)("image pull, %s: an interrupt ends it", async (kind) => {
    daemon.pulls.length = 0;
    const env = clientEnvironment(kind, daemon.dir);
    const child = spawn(launcher, ["image", "pull", "slow"], { env, stdio: "ignore" });
    const ended = new Promise((resolve) => child.on("close", resolve));
    await expect.poll(() => daemon.pulls.length, { timeout: 60_000 }).toBe(1);
    child.kill("SIGINT");
    expect(await ended).toBe(130);
  });

  test.each(kinds)("run, %s: a signal is the command's", async (kind) => {
    Object.assign(daemon.made, { requests: [], removed: 0 });
    const script = 'trap "exit 9" TERM; echo up; while :; do sleep 0.05; done';
    const env = clientEnvironment(kind, daemon.dir);
    const words = ["run", "image", "sh", "-c", script];
    const child = spawn(launcher, words, { env, stdio: ["ignore", "pipe", "inherit"] });
    const ended = new Promise((resolve) => child.on("close", resolve));
    child.stdout.once("data", () => child.kill("SIGTERM"));
    expect(await ended).toBe(9);
    expect(daemon.made.removed).toBe(1);
  });

  test("run: a command that the guest does not have is told by both alike, with the status of shells", async () => {
    const words = ["-e", "PATH=/nowhere", "bare", "no-such-command"];
    const both = await Promise.all(kinds.map((kind) => run(kind, words, "", "run")));
    expect(both[0]).toEqual(both[1]);
    expect(both[0]?.status).toBe(127);
  });

  test.each(kinds)("%s: bytes that are not UTF-8 arrive as they are", async (kind) => {
    const script = `B=$(printf 'a\\377\\344\\275b') && export B &&
      "$0" exec -e B vm sh -c 'printf %s "$B"' &&
      "$0" exec -e "X=$B" -w / vm sh -c 'printf %s "$X$0"' "$B"`;
    const bytes = "a\u00FF\u00E4\u00BDb";
    expect(await runScript(kind, script)).toEqual({
      status: 0,
      stdout: bytes.repeat(3),
      stderr: "",
    });
  });

  test.each(kinds)("%s: a closed output is noticed", async (kind) => {
    const { status, stderr } = await runScript(kind, '"$0" exec vm echo hi >&-');
    expect([status, stderr]).toEqual([1, expect.stringContaining("ERR_OUTPUT")]);
    expect((await runScript(kind, '"$0" exec vm true >&-')).status).toBe(0);
  });

  test.each(kinds)("%s: no byte is lost where connections break", async (kind) => {
    const bytes = 30_000_000;
    const cutting = setInterval(() => daemon.cut(), 40);
    try {
      const start = cliStart(kind, daemon.dir);
      const sum = createHash("sha256");
      const command = start(
        { kind: "exec", argv: ["cat"], stdin: true },
        { onStdout: (chunk) => void sum.update(chunk), onStderr: () => undefined },
      );
      command.stdin.end(noise(bytes));
      expect((await command.exit).exitCode).toBe(0);
      expect(sum.digest("hex")).toBe(createHash("sha256").update(noise(bytes)).digest("hex"));
    } finally {
      clearInterval(cutting);
    }
  });
});
