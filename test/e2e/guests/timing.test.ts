/** `--timing` and `--trace` of commands on a real guest: who had which part of the time, and nothing beside it. */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { Timing } from "../../../src/client/tracing/timeline.ts";
import { booted, installation, temporary } from "../../fixtures/ladder.ts";
import { vmsan, vmsanBin } from "../support.ts";

const here = installation("base");
const work = temporary();
const guest = booted(here, { name: "timed" });

/** What a command tells of its time, as JSON on standard error. */
async function timed(args: string[], code = 0): Promise<{ timing: Timing; stdout: string }> {
  const [name = "", ...rest] = args;
  const outcome = await vmsan([name, "--timing", "--json", ...rest], { dir: here.dir });
  expect(outcome.code, outcome.stdout.toString() + outcome.stderr).toBe(code);
  const line = outcome.stderr.split("\n").find((text) => text.startsWith('{"timing"'));
  const { timing } = JSON.parse(line ?? "null") as { timing: Timing };
  return { timing, stdout: outcome.stdout.toString() };
}

/** Names of the steps of one of them, in their order. */
function namesOf({ steps }: Timing, by: string): string[] {
  return steps.filter((step) => step.by === by).map(({ name }) => name);
}

/** What no step of the client covers, and what of the daemon's lies in none of the client's, in milliseconds. */
function leftOver({ steps, totalMs }: Timing): { client: number; daemon: number } {
  const calls = steps.filter(({ by }) => by === "client");
  let until = 0;
  let client = 0;
  for (const { fromMs, ms } of calls) {
    client += Math.max(0, fromMs - until);
    until = Math.max(until, fromMs + ms);
  }
  const outside = steps.filter(
    ({ by, fromMs, ms }) =>
      by === "daemon" &&
      !calls.some(
        (call) => call.fromMs <= fromMs + 0.2 && fromMs + ms <= call.fromMs + call.ms + 0.2,
      ),
  );
  const daemon = outside.reduce((sum, { ms }) => sum + ms, 0);
  return { client: client + Math.max(0, totalMs - until), daemon };
}

test("a VM's way from nothing to nothing is told, by whose time it was", async () => {
  const { timing, stdout } = await timed(
    ["run", "--no-warm", "base", "--", "sh", "-c", "exit 3"],
    3,
  );
  expect(JSON.parse(stdout)).toMatchObject({ exitCode: 3 });
  expect(leftOver(timing)).toEqual({ client: expect.closeTo(0, 0), daemon: 0 });
  expect(namesOf(timing, "guest")).toEqual(["kernel", "agent", "command"]);
  const daemon = namesOf(timing, "daemon");
  for (const phase of ["accept", "network", "image", "disk", "boot files", "VMM", "configure"]) {
    expect(daemon).toContain(phase);
  }
  // Its end.
  for (const phase of [
    "end the VMM",
    "remove the network",
    "release its image",
    "remove its files",
  ]) {
    expect(daemon.filter((name) => name === phase)).toEqual([phase]);
  }
  const kernel = timing.steps.find(({ name }) => name === "kernel");
  expect(kernel?.ms).toBeGreaterThan(20);
});

test("what is done with a VM that runs, too", async () => {
  const file = join(work.path, "sent");
  writeFileSync(file, "x".repeat(1 << 20));
  const commands: [string[], string[], string[]][] = [
    // Words, phases of the daemon, steps of the client.
    [["exec", "timed", "--", "true"], [], ["exec"]],
    [["cp", file, "timed:/tmp/sent"], [], ["upload"]],
    [["cp", "timed:/tmp/sent", join(work.path, "back")], [], ["download"]],
    [["list"], ["in the daemon"], ["GET /v1/vms"]],
    [["commit", "timed", "timed:1"], ["freeze", "disk", "thaw", "find its image", "layer"], []],
    [["fork", "timed", "--name", "other"], ["memory", "load", "answer", "mend"], []],
    [["suspend", "timed"], ["freeze", "memory", "end the VMM", "sync"], []],
    [["resume", "timed"], ["load", "answer", "mend"], []],
    [["rm", "-f", "other"], ["end the VMM", "remove its files"], []],
  ];
  for (const [words, phases, steps] of commands) {
    const { timing } = await timed(words);
    const told = { daemon: namesOf(timing, "daemon"), client: namesOf(timing, "client") };
    expect(told.daemon, words.join(" ")).toEqual(expect.arrayContaining(phases));
    expect(told.client, words.join(" ")).toEqual(expect.arrayContaining(steps));
    expect(leftOver(timing), words.join(" ")).toEqual({ client: expect.closeTo(0, 0), daemon: 0 });
  }
  expect(readFileSync(join(work.path, "back"), "utf8")).toHaveLength(1 << 20);
});

test("a command that fails, or is interrupted, is told of as well, and its output is its own", async () => {
  const trace = join(work.path, "trace.json");
  const shown = await vmsan(
    [
      "exec",
      "--timing",
      "--trace",
      trace,
      guest.id,
      "--",
      "sh",
      "-c",
      "echo out; echo err >&2; exit 7",
    ],
    {
      dir: here.dir,
    },
  );
  expect(shown).toMatchObject({ code: 7, stdout: Buffer.from("out\n") });
  expect(shown.stderr).toMatch(/^err\n {7}at +ms\n[^]*exec\n[^]* {2}in all\n$/);
  const { traceEvents } = JSON.parse(readFileSync(trace, "utf8")) as {
    traceEvents: { name: string }[];
  };
  expect(traceEvents.map(({ name }) => name)).toContain("vmsan exec");

  const missing = await timed(["exec", "nowhere", "--", "true"], 1);
  expect(JSON.parse(missing.stdout)).toMatchObject({ error: { code: "ERR_VM_NOT_FOUND" } });
  expect(namesOf(missing.timing, "client")).toContain("GET /v1/vms/nowhere");

  const interrupted = await vmsan(["create", "--timing", "--no-warm"], {
    dir: here.dir,
    // The first that it says is of its progress.
    onProcess: (child) => child.stderr?.once("data", () => child.kill("SIGINT")),
  });
  expect(interrupted.code).toBe(130);
  expect(interrupted.stderr).toContain("POST /v1/vms");
  const unwritten = await vmsan(["list", "--trace", join(work.path, "none/trace.json")], {
    dir: here.dir,
  });
  expect(unwritten).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("ERR_TRACE_FILE") as string,
  });
});

test("time counts from the shell's first word, and what does so is handed to nobody", async () => {
  const env = { ...process.env, VMSAN_DIR: here.dir };
  const before = performance.now();
  const { stderr } = spawnSync(
    vmsanBin,
    ["exec", "--json", "--timing", guest.id, "--", "printenv"],
    { env, encoding: "utf8" },
  );
  const wallMs = performance.now() - before;
  const { timing } = JSON.parse(stderr) as { timing: Timing };
  expect(timing.totalMs).toBeLessThan(wallMs);
  const printed = await vmsan(["exec", "--timing", guest.id, "--", "printenv"], { dir: here.dir });
  expect(printed.stdout.toString()).not.toContain("VMSAN_BEGAN");
});
