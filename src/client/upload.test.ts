import { execFileSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { afterAll, beforeAll, expect, test } from "vitest";
import { uploadOf } from "./upload.ts";

let dir = "";
beforeAll(async () => void (dir = await mkdtemp(join(tmpdir(), "vmsan-upload-"))));
afterAll(async () => await rm(dir, { recursive: true }));

test("a file that cannot be read is told before the daemon is asked", async () => {
  await expect(uploadOf(join(dir, "none"))).rejects.toMatchObject({
    code: "ERR_FILE_UNREADABLE",
    message: `Cannot read ${join(dir, "none")}`,
  });
  await expect(uploadOf(dir)).rejects.toMatchObject({ why: "it is a directory" });
});

test("a file is read anew at each try, a stream is what it is", async () => {
  const path = join(dir, "file");
  await writeFile(path, "content");
  const open = await uploadOf(path);
  expect((await buffer(open())).toString()).toBe("content");
  expect((await buffer(open())).toString()).toBe("content");
  const stream = Readable.from([]);
  expect((await uploadOf(stream))()).toBe(stream);
});

test("a named pipe keeps its reader", async () => {
  const path = join(dir, "pipe");
  execFileSync("mkfifo", [path]);
  const open = await uploadOf(path);
  const [read] = await Promise.all([buffer(open()), writeFile(path, "through it")]);
  expect(read.toString()).toBe("through it");
});
