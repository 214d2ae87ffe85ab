import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, expect, test, vi } from "vitest";
import { lock, tryLock } from "./lock.ts";

// Pauses are counted.
vi.mock("node:timers/promises", async (original) => {
  const timers = await original<{ setTimeout: typeof sleep }>();
  return { ...timers, setTimeout: vi.fn(timers.setTimeout) };
});

const dir = mkdtempSync(join(tmpdir(), "vmsan-lock-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

test("one holder at a time, also within a process", () => {
  const path = join(dir, "a.lock");
  const first = tryLock(path);
  expect(first).toBeDefined();
  expect(tryLock(path)).toBeUndefined();
  first?.release();
  const second = tryLock(path);
  expect(second).toBeDefined();
  second?.release();
});

test("the lock of a killed process is free", async () => {
  const path = join(dir, "b.lock");
  const source = `import { tryLock } from ${JSON.stringify(join(import.meta.dirname, "lock.ts"))};
    globalThis.held = tryLock(${JSON.stringify(path)}); console.log("held"); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", source]);
  await new Promise((resolve) => child.stdout.once("data", resolve));
  expect(tryLock(path)).toBeUndefined();
  const waiting = lock(path, { timeoutMs: 10_000 });
  child.kill("SIGKILL");
  (await waiting).release();
});

test.each(["garbage", "SQLite format 3\0".padEnd(4096, "x"), "\0".repeat(100)])(
  "a damaged lock file (%#) is one as any other, and still excludes",
  (content) => {
    const path = join(dir, `damaged-${content.length}`);
    writeFileSync(path, content);
    const first = tryLock(path);
    expect(first).toBeDefined();
    expect(tryLock(path)).toBeUndefined();
    first?.release();
    tryLock(path)?.release();
  },
);

test("a lock file that is damaged under its holder stays held", async () => {
  const path = join(dir, "held.lock");
  const source = `import { tryLock } from ${JSON.stringify(join(import.meta.dirname, "lock.ts"))};
    globalThis.held = tryLock(${JSON.stringify(path)}); console.log("held"); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", source]);
  await new Promise((resolve) => child.stdout.once("data", resolve));
  writeFileSync(path, "garbage over what its holder has");
  expect(tryLock(path)).toBeUndefined();
  child.kill("SIGKILL");
  (await lock(path, { timeoutMs: 10_000 })).release();
});

test("within a process it is given in the order of the calls, and who gives up holds up nobody", async () => {
  const path = join(dir, "order.lock");
  const order: number[] = [];
  const first = await lock(path);
  const leaves = new AbortController();
  const waiting = [1, 2, 3, 4].map(async (number) => {
    const signal = number === 2 ? leaves.signal : undefined;
    const held = await lock(path, signal === undefined ? {} : { signal });
    order.push(number);
    await new Promise(setImmediate);
    held.release();
  });
  leaves.abort(new Error("left"));
  await expect(waiting[1]).rejects.toThrow("left");
  await expect(lock(path, { timeoutMs: 1 })).rejects.toMatchObject({ code: "ERR_TIMEOUT_LOCK" });
  expect(order).toEqual([]);
  first.release();
  await Promise.all(waiting.filter((_, index) => index !== 1));
  expect(order).toEqual([1, 3, 4]);
  tryLock(path)?.release();
});

test.each([
  ["at once", "await Promise.all(Array.from({ length: 400 }, turn));"],
  ["one after another", "for (let i = 0; i < 400; i += 1) await turn();"],
])("four hundred calls of one process, %s, let another process in between", async (_, burst) => {
  const path = join(dir, `burst-${burst.length}.lock`);
  const count = `${path}.count`;
  const source = `import { writeFileSync } from "node:fs";
    import { setTimeout as sleep } from "node:timers/promises";
    import { withLock } from ${JSON.stringify(join(import.meta.dirname, "lock.ts"))};
    let done = 0;
    const turn = () => withLock(${JSON.stringify(path)}, async () => {
      await sleep(10);
      writeFileSync(${JSON.stringify(count)}, String(done += 1));
      if (done === 3) console.log("under way");
    });
    ${burst}`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", source]);
  const ended = new Promise((resolve) => child.once("exit", resolve));
  await new Promise((resolve) => child.stdout.once("data", resolve));
  for (let i = 0; i < 3; i += 1) (await lock(path)).release();
  child.kill("SIGKILL");
  await ended;
  expect(Number(readFileSync(count, "utf8"))).toBeLessThan(60);
});

test("a lock whose file was just made is waited for by nobody", async () => {
  const path = join(dir, "new.lock");
  const before = vi.mocked(sleep).mock.calls.length;
  for (let i = 0; i < 3; i += 1) (await lock(path)).release();
  expect(vi.mocked(sleep).mock.calls).toHaveLength(before);
});
