/** Measurements that are interrupted leave nothing: no file, no daemon, no VM, no sshd. */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";

const root = resolve(import.meta.dirname, "../../..");

/** Command lines of processes that have the text in theirs or in their environment. */
function processesWith(text: string): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, "latin1");
        const all = line + readFileSync(`/proc/${pid}/environ`, "latin1");
        return all.includes(text) ? [line.replaceAll("\0", " ")] : [];
      } catch {
        // ENOENT, ESRCH, EACCES: it has ended, or is another user's.
        return [];
      }
    });
}

/** The moment at which something has been made: so many processes of it run, or so much time has passed. */
async function underway(temporary: string, enough: number): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (processesWith(temporary).length < enough && Date.now() < deadline) await sleep(50);
  await sleep(1500);
}

test.each<[string, NodeJS.Signals, string[]]>([
  ["start", "SIGINT", ["--rounds", "500"]],
  ["start", "SIGTERM", ["--rounds", "500"]],
  ["guest", "SIGINT", ["--rounds", "500"]],
  ["guest", "SIGTERM", ["--rounds", "500"]],
  ["run", "SIGINT", ["--rounds", "50"]],
  ["run", "SIGTERM", ["--rounds", "50"]],
  ["boot", "SIGTERM", ["--runs", "100"]],
  ["pull", "SIGINT", ["--rounds", "100", "--big", "20"]],
  ["rootfs", "SIGTERM", ["--megabytes", "20", "--files", "400", "--runs", "1000"]],
  ["disks", "SIGINT", ["--only", "small-gzip", "--scale", "0.01", "--runs", "1000"]],
  ["network", "SIGINT", []],
])("bench/%s at %s", async (name, signal, args) => {
  const temporary = mkdtempSync(join(tmpdir(), "vmsan-interrupted-"));
  const child = spawn(process.execPath, [join(root, `bench/${name}.ts`), ...args], {
    env: { ...process.env, TMPDIR: temporary },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  child.stderr.on("data", (text: Buffer) => (said += text.toString()));
  const ended = new Promise<number | null>((done) => child.on("close", done));
  try {
    await Promise.race([underway(temporary, name === "boot" ? 2 : 3), ended]);
    // Where a measurement cannot be made, it says so and ends.
    if (child.exitCode === null) child.kill(signal);
    const status = await ended;
    expect(processesWith(temporary), said).toEqual([]);
    expect(readdirSync(temporary), said).toEqual([]);
    if (name !== "network") expect(status, said).toBe(128 + constants.signals[signal]);
  } finally {
    child.kill("SIGKILL");
    rmSync(temporary, { recursive: true, force: true });
  }
});
