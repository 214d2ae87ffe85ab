import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { removeTree } from "./remove-tree.ts";

let dir = "";
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vmsan-remove-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

test("a tree goes that is deeper than a path may be long", async () => {
  const [tree, below] = [join(dir, "tree"), join(dir, "below")];
  mkdirSync(tree);
  // From the inside out, so that no path is too long to be named.
  for (let level = 0; level < 30; level += 1) {
    renameSync(tree, below);
    mkdirSync(tree);
    renameSync(below, join(tree, "x".repeat(200)));
  }
  await removeTree(tree);
  expect(existsSync(tree)).toBe(false);
});

test("so does one whose modes keep its owner out, and none is no error", async () => {
  const tree = join(dir, "tree");
  mkdirSync(join(tree, "closed"), { recursive: true });
  writeFileSync(join(tree, "closed/file"), "");
  chmodSync(join(tree, "closed"), 0);
  await removeTree(tree);
  expect(existsSync(tree)).toBe(false);
  await removeTree(tree);
});
