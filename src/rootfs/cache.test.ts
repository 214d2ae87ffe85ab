import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  chmodSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { makeTar, storeLayer } from "../layers/testing.ts";
import type { LayerBlob } from "../model/image.ts";
import { ensureRootfs, listRootfs, pruneRootfs, sweepRootfs } from "./cache.ts";
import { expectClean } from "./contract.ts";

const SIZE = 32 * 1024 * 1024;
let dir = "";
let cacheDir = "";
let layers: LayerBlob[] = [];

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vmsan-cache-"));
  cacheDir = join(dir, "cache");
  layers = [storeLayer(dir, makeTar([{ path: "a", data: "a".repeat(10_000) }]), "gzip")];
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

test("builds once, then takes what is there", async () => {
  const first = await ensureRootfs(layers, { cacheDir, sizeBytes: SIZE });
  expect(first.cached).toBe(false);
  await expectClean(first.path);
  expect(statSync(first.path).mode & 0o777).toBe(0o444);
  const second = await ensureRootfs(layers, { cacheDir, sizeBytes: SIZE });
  expect(second).toEqual({ ...first, cached: true });
  expect((await listRootfs(cacheDir)).map(({ key }) => key)).toEqual([first.key]);
});

test("the same layers and options give the same bytes; others another key", async () => {
  const a = await ensureRootfs(layers, { cacheDir, sizeBytes: SIZE });
  const b = await ensureRootfs(layers, { cacheDir: join(dir, "other"), sizeBytes: SIZE });
  expect(readFileSync(a.path).equals(readFileSync(b.path))).toBe(true);
  const c = await ensureRootfs(layers, { cacheDir, sizeBytes: 2 * SIZE });
  expect(c.key).not.toBe(a.key);
});

test("callers at the same time build once", async () => {
  const all = await Promise.all(
    [1, 2, 3].map(() => ensureRootfs(layers, { cacheDir, sizeBytes: SIZE })),
  );
  expect(all.filter(({ cached }) => !cached).length).toBe(1);
});

test("an entry that was tampered with is built again", async () => {
  const { path } = await ensureRootfs(layers, { cacheDir, sizeBytes: SIZE });
  chmodSync(path, 0o644);
  truncateSync(path, 1000);
  const again = await ensureRootfs(layers, { cacheDir, sizeBytes: SIZE });
  expect(again.cached).toBe(false);
  await expectClean(again.path);
});

test("a failed build leaves nothing", async () => {
  const bad = [{ ...(layers[0] as LayerBlob), diffId: `sha256:${"1".repeat(64)}` as const }];
  await expect(ensureRootfs(bad, { cacheDir, sizeBytes: SIZE })).rejects.toMatchObject({
    code: "ERR_LAYER_DIFF_ID",
  });
  expect(readdirSync(cacheDir)).toEqual(["locks"]);
});

test("prune removes all but what is kept", async () => {
  const a = await ensureRootfs(layers, { cacheDir, sizeBytes: SIZE });
  const b = await ensureRootfs(layers, { cacheDir, sizeBytes: 2 * SIZE });
  const { removed, freedBytes } = await pruneRootfs(cacheDir, [a.key]);
  expect(removed).toEqual([b.key]);
  expect(freedBytes).toBeGreaterThan(0);
  expect([existsSync(a.path), existsSync(b.path)]).toEqual([true, false]);
});

test("what a killed build leaves is swept, but not while it lives", async () => {
  // A layer large enough that its build can be caught in the middle.
  const data = Buffer.alloc(30 * 1024 * 1024);
  for (let i = 0; i < data.length; i += 4) data.writeUInt32LE((i * 2_654_435_761) >>> 0, i);
  const large = [storeLayer(dir, makeTar([{ path: "big", data }]), "gzip")];
  const script = `
    import { ensureRootfs } from ${JSON.stringify(new URL("./cache.ts", import.meta.url).href)};
    await ensureRootfs(${JSON.stringify(large)}, { cacheDir: ${JSON.stringify(cacheDir)}, sizeBytes: ${2 * SIZE},
      progress: (done) => { if (done > 0) process.stdout.write("started\\n"); } });`;
  const program = join(dir, "build.mjs");
  writeFileSync(program, script);
  const child = spawn(process.execPath, [program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  const building = readdirSync(cacheDir).filter((name) => name.startsWith("building-"));
  child.kill("SIGKILL");
  await once(child, "exit");
  if (building.length === 0) throw new Error("the build was over before it could be killed");
  expect(readdirSync(cacheDir).filter((name) => /^[0-9a-f]{64}$/.test(name))).toEqual([]);
  expect(await sweepRootfs(cacheDir)).toHaveLength(1);
  expect(readdirSync(cacheDir)).toEqual(["locks"]);
});
