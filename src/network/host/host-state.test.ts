import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { HostState } from "./host-state.ts";
import { closedForwardChains } from "./probe.ts";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vmsan-host-state-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

test("the host's settings are taken back by the last user only", async () => {
  const done: string[] = [];
  const state = new HostState(join(dir, "state"));
  expect(state.exists).toBe(false);
  await state.use({}, [], async () => {
    done.push("used");
    await Promise.resolve();
  });
  expect(state.exists).toBe(true);
  const undo = async (): Promise<void> => {
    done.push("undone");
    await Promise.resolve();
  };
  // Links of another installation's VMs are there.
  expect(await state.leave(() => true, undo)).toEqual([]);
  expect(state.exists).toBe(true);
  // A process that has ended without a word holds nothing; a living one does.
  writeFileSync(join(dir, "state", "user-4000000-1"), "");
  const parent = readFileSync(`/proc/${process.ppid}/stat`, "utf8");
  const startTime = parent.slice(parent.lastIndexOf(")") + 2).split(" ")[19];
  const living = join(dir, "state", `user-${process.ppid}-${startTime}`);
  writeFileSync(living, "");
  expect(await state.leave(() => false, undo)).toEqual([]);
  expect(done).toEqual(["used"]);
  rmSync(living);
  expect(await state.leave(() => false, undo)).toEqual([]);
  expect(done).toEqual(["used", "undone"]);
  expect(state.exists).toBe(false);
});

test("a process of another PID namespace, which cannot be seen, holds what it uses until its end", async () => {
  const state = new HostState(join(dir, "state"));
  await state.use({}, [], async () => await Promise.resolve());
  // No process has that number here.
  const mark = join(dir, "state", "user-4000000-1");
  const lock = JSON.stringify(join(import.meta.dirname, "../../util/lock.ts"));
  const program = `const { tryLock } = await import(${lock});
    globalThis.held = tryLock(${JSON.stringify(mark)});
    process.stdout.write("held");
    setInterval(() => undefined, 1000);`;
  const words = ["--input-type=module", "--eval", program];
  const child = spawn(process.execPath, words, { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data");
  let undone = 0;
  const undo = async (): Promise<void> => {
    undone += 1;
    await Promise.resolve();
  };
  await state.leave(() => false, undo);
  expect([undone, state.exists]).toEqual([0, true]);
  child.kill("SIGKILL");
  await once(child, "exit");
  await state.leave(() => false, undo);
  expect([undone, state.exists]).toEqual([1, false]);
});

test("forward chains that drop are named, unless they know vmsan", () => {
  const chain = (table: string, policy: string, hook = "forward"): object => ({
    chain: { family: "ip", table, name: "FORWARD", hook, policy },
  });
  const rule = (table: string, right: string): object => ({
    rule: {
      table,
      chain: "FORWARD",
      expr: [{ match: { op: "==", left: { meta: { key: "iifname" } }, right } }, { accept: null }],
    },
  });
  const closed = (...nftables: object[]): string[] =>
    closedForwardChains(JSON.stringify({ nftables: [{ metainfo: {} }, ...nftables] }));
  expect(closed(chain("filter", "accept"), chain("filter", "drop", "input"))).toEqual([]);
  expect(closed(chain("filter", "drop"), rule("filter", "docker0"))).toEqual(["ip filter FORWARD"]);
  // Our own table's rules do not open somebody else's chain.
  expect(closed(chain("filter", "drop"), rule("vmsan", "vmsan*"))).toEqual(["ip filter FORWARD"]);
  expect(closed(chain("filter", "drop"), rule("filter", "vmsan*"))).toEqual([]);
});
