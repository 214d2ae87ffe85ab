/** Disks begun before their image is there: built once where all goes well, once more where it does not. */
import { availableParallelism } from "node:os";
import { expect, test } from "vitest";
import type { ComingLayer, Digest, LayerBlob, LayerFollower } from "../../model/image.ts";
import type { ProgressEvent } from "../../model/progress.ts";
import type { Rootfs, RootfsOptions } from "../../rootfs/cache.ts";
import { DiskAhead } from "./disk-ahead.ts";

const digestOf = (digit: string): Digest => `sha256:${digit.repeat(64)}`;
/** A layer as it is announced. */
const coming = (digit: string): ComingLayer => ({
  digest: digestOf(digit),
  size: 100,
  diffId: digestOf(digit),
  compression: "gzip",
  path: `/blobs/${digit}`,
  partial: `/partial/${digit}`,
});
const layers = [coming("a"), coming("b"), coming("a")];

type Guess = Pick<RootfsOptions, "signal" | "coming">;

/** A cache of nothing but names, and what it was to build. */
function bench(): {
  ahead: DiskAhead;
  builds: { layers: LayerBlob[]; options: Guess }[];
  told: ProgressEvent[];
  /** How guesses end; those of layers that are there always succeed. */
  guess: { end: (options: Guess) => Promise<void> };
  cache: Map<string, Rootfs>;
} {
  const told: ProgressEvent[] = [];
  const builds: { layers: LayerBlob[]; options: Guess }[] = [];
  const guess: { end: (options: Guess) => Promise<void> } = {
    end: async () => await Promise.resolve(),
  };
  const work = {
    signal: new AbortController().signal,
    progress: (event: ProgressEvent) => told.push(event),
  };
  const cache = new Map<string, Rootfs>();
  const ahead = new DiskAhead(work, async (wanted, options) => {
    const key = wanted.map(({ diffId }) => diffId).join();
    const present = cache.get(key);
    if (present !== undefined) return present;
    builds.push({ layers: wanted, options });
    const disk = { path: `/disk/${builds.length}` } as Rootfs;
    options.progress?.(1, 2);
    if (options.coming !== undefined) await guess.end(options);
    cache.set(key, disk);
    return disk;
  });
  return { ahead, builds, told, guess, cache };
}

test("one build follows the layers, of which each may be in the image twice", async () => {
  const { ahead, builds, told } = bench();
  const seen: [number, number][] = [];
  await ahead.during(async (follow) => {
    const follower = follow(layers);
    follower?.arrived(digestOf("a"), 10);
    builds[0]?.options.coming?.follow((layer, bytes) => seen.push([layer, bytes]));
    follower?.arrived(digestOf("b"), 100);
    follower?.arrived(digestOf("a"), 5);
    follower?.arrived(digestOf("a"), 100);
  });
  // While it is pulled, that is what is told.
  expect(told).toEqual([]);
  expect((await ahead.of(layers)).path).toBe("/disk/1");
  expect(told).toMatchObject([{ phase: "build", done: 1, total: 2 }]);
  expect(builds.length).toBe(1);
  expect(builds[0]?.options.coming?.partials).toEqual(["/partial/a", "/partial/b", "/partial/a"]);
  expect(seen).toEqual([
    [0, 10],
    [2, 10],
    [1, 100],
    [0, 100],
    [2, 100],
  ]);
});

test("an image that was there is built as always", async () => {
  const { ahead, builds, told } = bench();
  await ahead.during(async () => await Promise.resolve());
  await ahead.of(layers);
  expect(builds.map(({ options }) => options.coming)).toEqual([undefined]);
  expect(told.length).toBe(1);
});

test("a guess that fails is built once more of what is there", async () => {
  const { ahead, builds, guess } = bench();
  guess.end = async () => await Promise.reject(new Error("not as announced"));
  await ahead.during(async (follow) => await Promise.resolve(follow(layers)));
  expect((await ahead.of(layers)).path).toBe("/disk/2");
  expect(builds[1]?.options.coming).toBeUndefined();
});

test("a disk that was removed meanwhile is built again", async () => {
  const { ahead, builds, cache } = bench();
  await ahead.during(async (follow) => await Promise.resolve(follow(layers)));
  while (cache.size === 0) await new Promise(setImmediate);
  expect(builds.length).toBe(1);
  cache.clear();
  expect((await ahead.of(layers)).path).toBe("/disk/2");
});

test("other layers than announced, or what was thrown away, are built anew", async () => {
  const spoils: ((follower: LayerFollower | undefined) => ComingLayer[])[] = [
    () => layers.slice(1),
    () => [coming("b"), coming("b"), coming("a")],
    (follower) => {
      follower?.lost();
      return layers;
    },
  ];
  for (const spoil of spoils) {
    const { ahead, builds, guess } = bench();
    guess.end = async ({ signal }) =>
      await new Promise((_, reject) => {
        signal?.addEventListener("abort", () => reject(new Error("ended")), { once: true });
      });
    const found = await ahead.during(
      async (follow) => await Promise.resolve(spoil(follow(layers))),
    );
    expect((await ahead.of(found)).path).toBe("/disk/2");
    expect(builds[0]?.options.signal?.aborted).toBe(true);
  }
});

test("a pull that fails ends what was begun, and is what fails", async () => {
  const { ahead, builds, guess } = bench();
  guess.end = async ({ signal }) =>
    await new Promise((_, reject) => {
      signal?.addEventListener("abort", () => reject(new Error("ended")), { once: true });
    });
  const pulling = ahead.during(async (follow) => {
    follow(layers);
    return await Promise.reject(new Error("no such layer"));
  });
  await expect(pulling).rejects.toThrow("no such layer");
  expect(builds[0]?.options.signal?.aborted).toBe(true);
});

test("no more are begun at once than there are processors", async () => {
  const ends: (() => void)[] = [];
  const benches = Array.from({ length: availableParallelism() + 1 }, () => bench());
  const begin = async ({ ahead, guess }: ReturnType<typeof bench>): Promise<boolean> => {
    guess.end = async () => await new Promise((done) => ends.push(done));
    return await ahead.during(
      async (follow) => await Promise.resolve(follow(layers) !== undefined),
    );
  };
  const begun = [];
  for (const each of benches) begun.push(await begin(each));
  expect(begun).toEqual(benches.map((_, index) => index < benches.length - 1));
  // The one that was not is built when all is there, as always.
  expect((await benches.at(-1)?.ahead.of(layers))?.path).toBe("/disk/1");
  for (const end of ends) end();
  for (const { ahead } of benches.slice(0, -1)) await ahead.of(layers);
  const later = bench();
  expect(
    await later.ahead.during(async (follow) => await Promise.resolve(follow(layers))),
  ).toBeDefined();
});

test("a disk that waits for its registry keeps nobody from the same disk whose layers are there", async () => {
  const slow = bench();
  slow.guess.end = async ({ signal }) =>
    await new Promise((_, reject) => {
      signal?.addEventListener("abort", () => reject(new Error("ended")), { once: true });
    });
  const { promise: pulled, resolve: pull } = Promise.withResolvers<undefined>();
  const slowly = slow.ahead.during(async (follow) => {
    follow(layers)?.arrived(digestOf("a"), 100);
    return await pulled;
  });
  // The other's own registry has these layers; compressed otherwise, they are other files.
  const others = layers.map((layer) => ({ ...layer, path: `/elsewhere${layer.path}` }));
  const quick = bench();
  const same = bench();
  await same.ahead.of(layers);
  expect(slow.builds[0]?.options.signal?.aborted).toBe(false);
  await quick.ahead.of(others);
  expect(slow.builds[0]?.options.signal?.aborted).toBe(true);
  pull(undefined);
  await slowly;
  expect((await slow.ahead.of(layers)).path).toBe("/disk/2");
});

test("nothing is begun of layers of which somebody has all", async () => {
  const begins = async (): Promise<boolean> =>
    await bench().ahead.during(
      async (follow) => await Promise.resolve(follow(layers) !== undefined),
    );
  let meanwhile: boolean | undefined;
  const work = { signal: new AbortController().signal, progress: () => undefined };
  const other = new DiskAhead(work, async () => {
    meanwhile = await begins();
    return { path: "/disk" } as Rootfs;
  });
  await other.of(layers);
  expect(meanwhile).toBe(false);
  expect(await begins()).toBe(true);
});
