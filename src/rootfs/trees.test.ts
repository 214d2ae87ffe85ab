/** A few random images through both builders and umoci; many more in test/fuzz/trees.ts. */
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Ext4Reader } from "../ext4/ext4.ts";
import { run, runOk } from "../util/run.ts";
import { directBuilder } from "./direct.ts";
import { mke2fsBuilder } from "./mke2fs.ts";
import {
  builtTree,
  compareWithUmoci,
  complaints,
  differences,
  randomImage,
  shownOnDisk,
  storeImage,
  type Shown,
} from "./random-trees.ts";

const root = process.getuid?.() === 0;
const umoci = root && (await run("umoci", ["--version"])).code === 0;
if (!umoci) console.warn("trees are compared with umoci's only by root, and where umoci is");
let dir = "";
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "vmsan-trees-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));
/** Always the same images: what is new is looked for by the fuzzer. */
const FEW = { numRuns: 12, seed: 8 };
/** Each is built by a process, judged by more, and taken apart again: what an idle machine does in seconds. */
const LONG = { timeout: 600_000 };

test.skipIf(!umoci)("the tree is umoci's", LONG, async () => {
  const counts: Record<string, number> = {};
  await fc.assert(
    fc.asyncProperty(randomImage, async (image) => {
      const outcome = await compareWithUmoci(directBuilder, dir, image);
      counts[outcome] = (counts[outcome] ?? 0) + 1;
    }),
    FEW,
  );
  expect(counts["the same tree"] ?? 0).toBeGreaterThan(FEW.numRuns / 3);
});

test.skipIf(!root)("both builders make the same tree", LONG, async () => {
  let trees = 0;
  await fc.assert(
    fc.asyncProperty(randomImage, async (image) => {
      const layers = storeImage(dir, image);
      const [a, b] = [
        await builtTree(directBuilder, dir, layers),
        await builtTree(mke2fsBuilder, dir, layers),
      ];
      if (typeof a === "string" || typeof b === "string") {
        expect(a).toBe(b);
        return;
      }
      trees++;
      expect(differences(shownOnDisk(a, true), shownOnDisk(b, true))).toEqual([]);
    }),
    FEW,
  );
  expect(trees).toBeGreaterThan(FEW.numRuns / 3);
});

/** What debugfs extracts of an image's file. */
async function dumped(image: string, path: string): Promise<string> {
  const to = join(dir, "dumped");
  await runOk("debugfs", ["-R", `dump ${path} ${to}`, image], "ERR_TEST");
  return readFileSync(to, "latin1");
}

test("each judge notices an image that is wrong", async () => {
  const content = "the content of the file";
  const layers = storeImage(dir, [
    [
      { path: "a", data: content },
      { path: "b/", mode: 0o700 },
    ],
  ]);
  const good = join(dir, "good.ext4");
  const options = { sizeBytes: 2 ** 24, journal: false };
  await directBuilder.build(layers, good, options, { signal: new AbortController().signal });
  const shown = (image: string): Shown => {
    const reader = new Ext4Reader(image);
    try {
      return shownOnDisk(reader.tree(), true);
    } finally {
      reader.close();
    }
  };
  expect(await complaints(good)).toBe("");
  expect(await dumped(good, "/a")).toBe(content);
  const wanted = shown(good);
  expect(Object.keys(wanted)).toEqual(["a", "b"]);

  // Content: no checksum covers it, so e2fsck cannot see it; the other two must.
  const bytes = readFileSync(good);
  const changed = Buffer.from(bytes);
  changed.write("THE", changed.indexOf(content));
  const image = join(dir, "changed.ext4");
  writeFileSync(image, changed);
  expect(await dumped(image, "/a")).toBe(content.replace("the", "THE"));
  expect(differences(wanted, shown(image))).toHaveLength(1);

  // Metadata: a mode, with everything else right, is the tree's business; a bare byte e2fsck's.
  copyFileSync(good, image);
  await runOk("debugfs", ["-w", "-R", "set_inode_field /b mode 040755", image], "ERR_TEST");
  expect(await complaints(image)).toBe("");
  expect(differences(wanted, shown(image))).toHaveLength(1);

  // A name in a directory: e2fsck by the block's checksum, our reader by what it finds.
  const renamed = Buffer.from(bytes);
  const entry = renamed.indexOf(Buffer.from([1, 1, 0x61, 0, 0, 0]));
  expect(entry).toBeGreaterThan(0);
  renamed[entry + 2] = 0x7a;
  writeFileSync(image, renamed);
  expect(await complaints(image)).toContain("checksum");
  expect(differences(wanted, shown(image))).toHaveLength(2);

  // The superblock: refused by our reader and by debugfs.
  const headless = Buffer.from(bytes);
  headless[1024 + 0x18] = 7;
  writeFileSync(image, headless);
  expect(() => shown(image)).toThrow(RangeError);
  expect(await complaints(image)).not.toBe("");
  const { stderr } = await run("debugfs", ["-R", "cat /a", image]);
  expect(stderr).toContain("while");
});
