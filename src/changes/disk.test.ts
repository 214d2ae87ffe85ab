/** Disks in layers: what a copy has whose journal was replayed. */
import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { createEmptyDisk } from "../ext4/empty.ts";
import { openFileSystem } from "./disk.ts";

const dir = mkdtempSync(join(tmpdir(), "vmsan-disk-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const SIZE = 2 ** 40;
const CLUSTER = 65_536;
/** A cluster in the middle of a group of blocks, of which no file has any. */
const place = (group: number): number => group * 2 ** 27 + 2 ** 26;

test("a terabyte that was not closed: the copy has what each layer has, and its holes are not read", async () => {
  const [base, middle, top] = ["base", "middle", "top"].map((name) => join(dir, name));
  if (base === undefined || middle === undefined || top === undefined) throw new Error("no paths");
  await createEmptyDisk(base, { sizeBytes: SIZE, journal: true });
  execFileSync("debugfs", ["-w", "-R", "feature needs_recovery", base], { stdio: "ignore" });
  const raw = openSync(base, "r+");
  for (const group of [100, 200, 300])
    writeSync(raw, Buffer.alloc(CLUSTER, "b"), 0, CLUSTER, place(group));
  closeSync(raw);
  const over = (path: string, below: string, format: string, ...commands: string[]): void => {
    execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", "-b", below, "-F", format, path]);
    const words = commands.flatMap((command) => ["-c", command]);
    execFileSync("qemu-io", ["-f", "qcow2", ...words, path], { stdio: "ignore" });
  };
  over(middle, base, "raw", `write -P 0x6d ${place(200)} 64k`, `write -P 0x6d ${place(8191)} 64k`);
  over(
    top,
    middle,
    "qcow2",
    `write -P 0x74 ${place(8191) + 4096} 4k`,
    `write -z ${place(300)} 64k`,
  );

  const { signal } = new AbortController();
  const reader = await openFileSystem([base, middle, top], dir, signal);
  expect(reader.needsRecovery).toBe(false);
  reader.close();
  const copy = join(dir, "recovered.ext4");
  const { size, blocks, mode } = statSync(copy);
  expect([size, mode & 0o777]).toEqual([SIZE, 0o600]);
  expect(blocks * 512).toBeLessThan(64 << 20);
  const whole = openSync(copy, "r");
  const at = (offset: number): string => {
    const bytes = Buffer.alloc(1);
    readSync(whole, bytes, 0, 1, offset);
    return bytes.toString("latin1");
  };
  const seen = [100, 200, 300, 8191].map((group) => at(place(group)));
  const patch = [4095, 4096, 8191, 8192].map((offset) => at(place(8191) + offset));
  closeSync(whole);
  expect(seen).toEqual(["b", "m", "\0", "m"]);
  expect(patch).toEqual(["m", "t", "t", "m"]);
});
