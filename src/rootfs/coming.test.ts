/** Disks of layers that come while they are built: the same disks, and nothing is taken on trust. */
import {
  appendFileSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
} from "node:fs";
import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { makeTar, storeLayer } from "../layers/testing.ts";
import type { BuildContext, ComingLayers } from "../model/disk.ts";
import type { LayerBlob } from "../model/image.ts";
import { runBuild } from "./build.ts";
import { identityOf } from "./identity.ts";

let dir = "";
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vmsan-coming-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** Bytes that do not compress, the same each time. */
function noise(size: number, seed: string): Buffer {
  const parts: Buffer[] = [];
  for (let count = 0; count * 32 < size; count += 1) {
    parts.push(createHash("sha256").update(`${seed} ${count}`).digest());
  }
  return Buffer.concat(parts).subarray(0, size);
}

/** Two layers with content of their own, one of them hiding some of the other's. */
function twoLayers(): LayerBlob[] {
  const bottom = makeTar([
    { path: "a", data: noise(400_000, "a") },
    { path: "hidden", data: noise(90_000, "h") },
  ]);
  const top = makeTar([
    { path: "b", data: noise(300_000, "b") },
    { path: ".wh.hidden", data: "" },
  ]);
  return [storeLayer(dir, bottom, "gzip"), storeLayer(dir, top, "zstd")];
}

/** Takes files away, to bring them back as a pull does. */
class Delivery implements ComingLayers {
  readonly partials: string[];
  private readonly layers: readonly LayerBlob[];
  private readonly contents: Buffer[];
  private readonly there: number[];
  private tell: (layer: number, bytes: number) => void = () => undefined;

  constructor(layers: readonly LayerBlob[]) {
    this.layers = layers;
    this.partials = layers.map(({ path }) => `${path}.partial`);
    this.contents = layers.map(({ path }) => readFileSync(path));
    this.there = layers.map(() => 0);
    for (const { path } of layers) rmSync(path);
  }

  follow(tell: (layer: number, bytes: number) => void): () => void {
    this.tell = tell;
    for (const [layer, bytes] of this.there.entries()) if (bytes > 0) tell(layer, bytes);
    return () => (this.tell = () => undefined);
  }

  /** So many more bytes of a layer come; with the last one its file gets its name. */
  bring(layer: number, bytes: number): void {
    const { layers, contents, partials, there } = this;
    const [content, from] = [contents[layer] ?? Buffer.alloc(0), there[layer] ?? 0];
    const to = Math.min(content.length, from + bytes);
    appendFileSync(partials[layer] ?? "", content.subarray(from, to));
    there[layer] = to;
    if (to === content.length) renameSync(partials[layer] ?? "", layers[layer]?.path ?? "");
    this.tell(layer, to);
  }
}

/** Build a disk. @returns its path */
async function build(
  layers: LayerBlob[],
  name: string,
  coming?: ComingLayers,
  options: Partial<BuildContext> & { streams?: boolean } = {},
): Promise<string> {
  const { streams = false, signal = new AbortController().signal, progress } = options;
  const output = join(dir, name);
  const disk = { sizeBytes: 16 * 2 ** 20, journal: false };
  await runBuild(
    layers,
    { output, format: "disk", options: disk, identity: identityOf("x"), streams },
    { signal, ...(progress && { progress }), ...(coming && { coming }) },
  );
  return output;
}

test.each([
  ["in place", false],
  ["by public streams", true],
])("the same disk as of layers that are there, %s", async (_, streams) => {
  const layers = twoLayers();
  const expected = readFileSync(await build(layers, "expected"));
  const delivery = new Delivery(layers);
  // Some of a layer before anybody follows, and the lower one whole before the upper one has begun.
  delivery.bring(0, 1);
  let read = 0;
  let onRead: () => void = () => undefined;
  const progress = (done: number): void => {
    read = done;
    onRead();
  };
  const building = build(layers, "disk", delivery, { streams, progress });
  delivery.bring(0, 5000);
  delivery.bring(0, Infinity);
  let brought = 0;
  for (const bytes of [1, 17, 150_000]) {
    delivery.bring(1, bytes);
    brought += bytes;
    // The builder waits for more.
    await new Promise<void>((resolve) => {
      onRead = () => read >= brought && resolve();
      onRead();
    });
  }
  delivery.bring(1, Infinity);
  expect(readFileSync(await building).equals(expected)).toBe(true);
});

test("content that comes and is another one than announced is an error, and leaves nothing", async () => {
  const layers = twoLayers();
  const [bottom, top] = layers;
  if (bottom === undefined || top === undefined) throw new Error("no layers");
  const announced = [{ ...bottom, diffId: top.diffId }, top];
  const delivery = new Delivery(announced);
  const building = build(announced, "disk", delivery);
  delivery.bring(1, Infinity);
  delivery.bring(0, Infinity);
  await expect(building).rejects.toMatchObject({ code: "ERR_LAYER_DIFF_ID" });
  expect(readdirSync(dir).filter((name) => name.includes("disk"))).toEqual([]);
});

test("an abort while bytes are missing leaves nothing", async () => {
  const layers = twoLayers();
  const delivery = new Delivery(layers);
  const controller = new AbortController();
  const building = build(layers, "disk", delivery, { signal: controller.signal });
  delivery.bring(1, 1000);
  controller.abort(new Error("enough"));
  await expect(building).rejects.toThrow("enough");
  expect(readdirSync(dir).filter((name) => name.includes("disk"))).toEqual([]);
});
