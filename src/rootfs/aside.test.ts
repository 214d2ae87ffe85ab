import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { asidePath } from "./aside.ts";

test("what a dead process left is removed, what a live one builds is not", async () => {
  const dir = mkdtempSync(join(tmpdir(), "vmsan-aside-"));
  try {
    const output = join(dir, "disk.ext4");
    const live = await asidePath(output);
    writeFileSync(live, "");
    // A process that has ended: this one's number with another start, and a real dead one.
    const dead = live.replace(/building-\d+-\d+/, `building-${process.pid}-1`);
    const { pid } = spawnSync("true");
    const gone = live.replace(/building-\d+-/, `building-${pid}-`);
    const otherBoot = live.replace(/-[0-9a-f]{8}-([0-9a-f]{8})$/, "-00000000-$1");
    const foreign = join(dir, ".disk.ext4.mine");
    const otherOutput = dead.replace("disk.ext4", "other.ext4");
    for (const path of [dead, gone, otherBoot, foreign, otherOutput]) writeFileSync(path, "");
    const next = await asidePath(output);
    expect(next).not.toBe(live);
    expect([dead, gone, otherBoot].map((path) => existsSync(path))).toEqual([false, false, false]);
    expect([live, foreign, otherOutput].map((path) => existsSync(path))).toEqual([
      true,
      true,
      true,
    ]);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});
