import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { findLeftovers, killLeftovers } from "./leftovers.ts";

const root = mkdtempSync(join(tmpdir(), "vmsan-leftovers-"));
const started: ChildProcess[] = [];
afterAll(() => {
  for (const child of started) child.kill("SIGKILL");
  rmSync(root, { recursive: true, force: true });
});

/** A process that works in a directory and has an argument. */
async function running(dir: string, argument: string): Promise<number> {
  mkdirSync(dir, { recursive: true });
  const words = ["-e", "console.log('up'); setInterval(() => {}, 1000)", argument];
  const child = spawn(process.execPath, words, { cwd: dir, stdio: ["ignore", "pipe", "ignore"] });
  started.push(child);
  await once(child.stdout, "data");
  return child.pid ?? 0;
}

test("each of many that look at the same time finds its own, also one that began after the first look", async () => {
  const [a, b] = [join(root, "a"), join(root, "b")];
  const [inA, below, inB] = await Promise.all([
    running(a, "mark"),
    running(join(a, "deeper"), "mark"),
    running(b, "mark"),
    running(a, "another"),
  ]);
  const pids = async (dir: string): Promise<number[]> =>
    (await findLeftovers(dir, "mark")).map(({ pid }) => pid);
  const first = [pids(a), pids(b), pids(join(root, "none"))];
  await new Promise(setImmediate);
  const late = await running(b, "mark");
  const second = [pids(b), pids(a)];
  const inOrder = (list: readonly number[] | undefined): number[] =>
    (list ?? []).toSorted((one, other) => one - other);
  expect(inOrder(await first[0])).toEqual(inOrder([inA, below]));
  expect(await first[1]).toContain(inB);
  expect(await first[2]).toEqual([]);
  expect(inOrder(await second[0])).toEqual(inOrder([inB, late]));
  expect((await second[1])?.length).toBe(2);
  expect((await killLeftovers(a, "mark")).length).toBe(2);
  expect(await pids(a)).toEqual([]);
  expect((await pids(b)).length).toBe(2);
});
