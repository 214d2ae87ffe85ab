import { existsSync, readdirSync, readlinkSync } from "node:fs";
import { appendFile, mkdtemp, rm, stat, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ContainerLog, segmentPath, segmentsOf } from "./container-log.ts";
import { LogFile } from "./log-file.ts";
import { findTail, readLines, readPieces } from "./reader.ts";
import { stamp } from "./lines.ts";

const RUN = "0123456789abcdef";
let dir: string;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "vmsan-log-"));
});
afterEach(async () => await rm(dir, { recursive: true, force: true }));

async function all(): Promise<{ stdout: string; stderr: string }> {
  const said = { stdout: "", stderr: "" };
  for await (const { stream, bytes } of readPieces(dir)) {
    said[stream === 1 ? "stdout" : "stderr"] += bytes.toString();
  }
  return said;
}

test("a log that is opened again knows where each output stands, whatever its last write has left", async () => {
  const log = new ContainerLog(dir);
  expect(await log.begin(RUN)).toEqual({ stdout: 0, stderr: 0 });
  await log.append("stdout", Buffer.from("one\n"));
  await log.append("stderr", Buffer.from("oops"));
  await log.append("stdout", Buffer.from("two\n"));
  await log.close();
  const path = segmentPath(dir, 1);
  const { size } = await stat(path);
  for (const cut of [1, 3, 4, 10, 35]) {
    const before = await all();
    await truncate(path, size - cut);
    const again = new ContainerLog(dir);
    const known = await again.begin(RUN);
    const kept = cut < 36 ? "one\n" : "";
    expect([cut, known]).toEqual([cut, { stdout: kept.length, stderr: 4 }]);
    await again.append("stdout", Buffer.from("two\n"));
    await again.close();
    expect(await all()).toEqual(before);
  }
  // What is no entry at all is cut off as well.
  await appendFile(path, Buffer.alloc(100, 0xff));
  const last = new ContainerLog(dir);
  expect(await last.begin(RUN)).toEqual({ stdout: 8, stderr: 4 });
  // Another run of the container begins at 0, behind it.
  expect(await last.begin("f".repeat(16))).toEqual({ stdout: 0, stderr: 0 });
  await last.append("stdout", Buffer.from("three\n"));
  await last.close();
  expect(await all()).toEqual({ stdout: "one\ntwo\nthree\n", stderr: "oops" });
});

test("old files go, and the offsets outlive them", async () => {
  const log = new ContainerLog(dir, { fileBytes: 1000, files: 3 });
  await log.begin(RUN);
  await log.append("stderr", Buffer.from("early\n"));
  for (let i = 0; i < 100; i += 1)
    await log.append("stdout", Buffer.from(`line ${i} ${"x".repeat(80)}\n`));
  await log.close();
  expect(await segmentsOf(dir)).toHaveLength(3);
  const { stdout, stderr } = await all();
  expect(stderr).toBe("");
  expect(stdout).toMatch(/line 99 x+\n$/);
  expect(stdout).not.toContain("line 0 ");
  const { first, skip } = await findTail(dir, [1], 3);
  const last: string[] = [];
  for await (const { bytes } of readLines(readPieces(dir, { first }))) last.push(bytes.toString());
  expect(last.slice(skip).map((line) => line.slice(0, 8))).toEqual([
    "line 97 ",
    "line 98 ",
    "line 99 ",
  ]);
  const again = new ContainerLog(dir, { fileBytes: 1000, files: 3 });
  const length = Array.from({ length: 100 }, (_, i) => `line ${i} `.length + 81).reduce(
    (a, b) => a + b,
  );
  expect(await again.begin(RUN)).toEqual({ stdout: length, stderr: 6 });
  await again.close();
});

/** How a reader follows a log for as long as it is written to. */
function following(
  log: ContainerLog,
  isWritten: () => boolean,
): { version: () => number; more: (version: number) => Promise<boolean> } {
  return {
    version: () => log.version,
    more: async (version) => {
      if (!isWritten()) return false;
      await log.changed(version);
      return true;
    },
  };
}

test("a log of what prints nothing is no file; its first output makes it, and knows what came before", async () => {
  const own = join(dir, "a", "b");
  const log = new ContainerLog(own, { fileBytes: 1000, files: 3 });
  expect(await log.begin(RUN)).toEqual({ stdout: 0, stderr: 0 });
  expect(existsSync(own)).toBe(false);
  expect(await log.bytes()).toBe(0);
  // Lost in the guest, before anything was taken.
  log.skip("stderr", 7);
  let writing = true;
  const seen: string[] = [];
  const follow = following(log, () => writing);
  const reading = (async () => {
    for await (const { bytes } of readPieces(own, { follow })) seen.push(bytes.toString());
  })();
  await Promise.all([
    log.append("stdout", Buffer.from("one ")),
    log.append("stdout", Buffer.from("two")),
  ]);
  writing = false;
  log.wake();
  await reading;
  expect(seen.join("")).toBe("one two");
  await log.close();
  expect(await log.begin(RUN)).toEqual({ stdout: 7, stderr: 7 });
  await log.close();
});

test("a log that is closed while the next file begins leaves no file open", async () => {
  const open = (): string[] =>
    readdirSync("/proc/self/fd").flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`)].filter((path) => path.startsWith(dir));
      } catch {
        // ENOENT: of this very look.
        return [];
      }
    });
  const log = new ContainerLog(dir, { fileBytes: 100, files: 3 });
  await log.begin(RUN);
  await log.append("stdout", Buffer.alloc(100, "x"));
  expect(open()).toHaveLength(1);
  const added = log.append("stdout", Buffer.from("y"));
  await Promise.all([log.close(), added]);
  // Nor does what comes too late open one.
  await log.append("stdout", Buffer.from("z"));
  expect(open()).toEqual([]);
});

test("what was taken before a log is closed is in it", async () => {
  const log = new ContainerLog(dir, { fileBytes: 1000, files: 3 });
  await log.begin(RUN);
  const taken = [log.append("stdout", Buffer.from("last "))];
  await Promise.all([log.close(), ...taken]);
  await log.begin(RUN);
  taken.push(
    log.append("stdout", Buffer.from("words ")),
    log.append("stdout", Buffer.from("of it")),
  );
  await Promise.all([log.close(), ...taken]);
  expect((await all()).stdout).toBe("last words of it");
});

test("a next file that cannot be begun is tried again, and nothing of it stays", async () => {
  const said: unknown[] = [];
  const log = new ContainerLog(dir, { fileBytes: 100, files: 3 }, (error) => said.push(error));
  await log.begin(RUN);
  await log.append("stdout", Buffer.from(`${"a".repeat(100)}\n`));
  const begin = vi.spyOn(LogFile.prototype, "begin").mockImplementationOnce(() => {
    throw new Error("ENOSPC");
  });
  await log.append("stdout", Buffer.from("lost\n"));
  expect(await segmentsOf(dir)).toEqual([1]);
  await log.append("stdout", Buffer.from("after\n"));
  begin.mockRestore();
  await log.close();
  expect(said).toHaveLength(1);
  expect(await segmentsOf(dir)).toEqual([1, 2]);
  expect((await all()).stdout).toBe(`${"a".repeat(100)}\nafter\n`);
});

test("a log that cannot be written ends nothing, is said once, and goes on when it can", async () => {
  const said: unknown[] = [];
  const log = new ContainerLog(dir, { fileBytes: 1 << 20, files: 3 }, (error) => said.push(error));
  await log.begin(RUN);
  await log.append("stdout", Buffer.from("before\n"));
  const file = (log as unknown as { file: { append: (bytes: Buffer) => Promise<void> } }).file;
  const { append: real } = file;
  file.append = async (bytes) => {
    // As a full disk does: a part of it, then no more.
    await real.call(file, bytes.subarray(0, 10));
    throw new Error("ENOSPC");
  };
  await log.append("stdout", Buffer.from("lost\n"));
  await log.append("stderr", Buffer.from("lost\n"));
  file.append = real;
  await log.append("stdout", Buffer.from("after\n"));
  await log.close();
  expect(said).toHaveLength(1);
  expect(await all()).toEqual({ stdout: "before\nafter\n", stderr: "" });
});

test("a reader that follows gets every piece once, also those written while it looks", async () => {
  const log = new ContainerLog(dir, { fileBytes: 5_000, files: 100 });
  await log.begin(RUN);
  let writing = true;
  const seen: string[] = [];
  const reading = (async () => {
    const follow = following(log, () => writing);
    for await (const { bytes } of readPieces(dir, { follow })) seen.push(bytes.toString());
  })();
  for (let i = 0; i < 2_000; i += 1) await log.append("stdout", Buffer.from(`${i}\n`));
  writing = false;
  log.wake();
  await reading;
  expect(seen.join("")).toBe(Array.from({ length: 2_000 }, (_, i) => `${i}\n`).join(""));
  await log.close();
});

test("lines: put together from pieces, by output; the last one without an end; long ones in parts", async () => {
  const log = new ContainerLog(dir);
  await log.begin(RUN);
  await log.append("stdout", Buffer.from("a"));
  await log.append("stderr", Buffer.from("E\nF"));
  await log.append("stdout", Buffer.from("b\nc\nd"));
  await log.append("stdout", Buffer.alloc(40_000, "x"));
  await log.close();
  const lines: [number, number, boolean][] = [];
  for await (const { stream, bytes, continued } of readLines(readPieces(dir))) {
    lines.push([stream, bytes.length, continued]);
  }
  expect(lines).toEqual([
    [2, 2, false],
    [1, 3, false],
    [1, 2, false],
    [1, 40_001, false],
    [2, 1, false],
  ]);
  expect(await findTail(dir, [1], 1)).toEqual({ first: 1, skip: 2 });
  expect(await findTail(dir, [1, 2], 100)).toEqual({ first: 1, skip: 0 });
  expect(await findTail(join(dir, "none"), [1], 5)).toEqual({ first: 0, skip: 0 });
});

test("the moment before a line has nine digits", () => {
  expect(stamp(1_700_000_000_123_456_789n)).toBe("2023-11-14T22:13:20.123456789Z");
});

test("a file that is closed by two, as when a log ends while the next file begins, is closed once", async () => {
  const file = new LogFile(join(dir, "1"));
  const added = file.append(Buffer.from("x"));
  await Promise.all([file.close(), file.close(), added]);
  await file.close();
});
