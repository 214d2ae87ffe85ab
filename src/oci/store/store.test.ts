/** The store: names, leases, pins, removal, disk use; archives in and out; corruption of everything. */
import { execFileSync, spawn } from "node:child_process";
import { pbkdf2 } from "node:crypto";
import {
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Readable } from "node:stream";
import { promisify } from "node:util";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { afterAll, beforeEach, expect, test } from "vitest";
import { hasTool } from "../../../test/registry/docker-registry.ts";
import {
  blob,
  makeImage,
  makeIndex,
  manifestOf,
  noise,
  tarOf,
  writeLayout,
} from "../../../test/registry/fixture.ts";
import {
  importArchive,
  openStore,
  parseImageSource,
  pin,
  resolveImage,
  sweepLeases,
  takeLease,
  unpin,
} from "../images.ts";
import { inflate } from "./decompress.ts";
import { findImage, inspectImage, listImages, tagImage } from "./manage.ts";
import { diskUse, pruneStore, removeImage } from "./space.ts";
import { verifyDiffIds, verifyStore } from "./testing.ts";
import { saveImage } from "../archives/save.ts";
import { resolveDockerDaemon } from "../archives/docker-daemon.ts";
import type { ContentStore } from "./store.ts";

const root = mkdtempSync(join(tmpdir(), "vmsan-store-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const base = tarOf("base", noise(200_000, 1));
const one = makeImage({
  layers: [base, tarOf("one", noise(1000, 2))],
  config: { User: "7", Cmd: "x", Env: null, StopSignal: "" },
});
const two = makeImage({ layers: [base, tarOf("two", noise(2000, 3))], compression: "zstd" });
const three = makeImage({
  layers: [base, tarOf("three", noise(500, 4))],
  architecture: "arm64",
});
const layout = join(root, "layout");
writeLayout(layout, [
  { top: one.manifest, tag: "one", images: [one] },
  {
    top: makeIndex([
      { image: two, architecture: "amd64" },
      { image: three, architecture: "arm64" },
    ]),
    tag: "two",
    images: [two, three],
  },
]);

let store: ContentStore;

beforeEach(async () => {
  store = await openStore(await mkdtemp(join(root, "store-")));
});

/** The layout as one tar file, as oci-archives are. */
function packLayout(dir: string): string {
  const file = join(mkdtempSync(join(root, "pack-")), "image.tar");
  execFileSync("tar", ["-C", dir, "-cf", file, "oci-layout", "index.json", "blobs"]);
  return file;
}
const archive = packLayout(layout);

const resolve = async (text: string) =>
  resolveImage(parseImageSource(text), { store, platform: { os: "linux", architecture: "amd64" } });
const code = (name: string) =>
  expect.objectContaining({
    code: name,
    why: expect.any(String) as string,
    fix: expect.any(String) as string,
  }) as Error;

test("a layout is used in place, by tag, and an index by platform", async () => {
  const image = await resolve(`oci:${layout}:one`);
  expect(image.digest).toBe(one.manifest.digest);
  expect(image.config).toEqual({
    env: [],
    entrypoint: [],
    cmd: ["x"],
    workingDir: "",
    user: "7",
    labels: {},
    exposedPorts: [],
    volumes: [],
  });
  expect(image.layers[0]?.path.startsWith(layout)).toBe(true);
  expect((await resolve(`oci:${layout}:two`)).digest).toBe(two.manifest.digest);
  await verifyDiffIds(image);
  await expect(resolve(`oci:${layout}`)).rejects.toThrow(code("ERR_IMAGE_AMBIGUOUS"));
  await expect(
    resolveImage(parseImageSource(`oci:${layout}:one`), {
      store,
      platform: { os: "linux", architecture: "arm64" },
    }),
  ).rejects.toThrow(code("ERR_IMAGE_PLATFORM"));
  await expect(resolve(`oci:${layout}:none`)).rejects.toThrow(code("ERR_IMAGE_NOT_FOUND"));
  await expect(resolve(`oci:${root}/nowhere`)).rejects.toThrow(code("ERR_IMAGE_NOT_FOUND"));
});

test("each blob of a layout corrupted, cut and removed in turn is an error", async () => {
  for (const damage of ["flip", "cut", "remove"] as const) {
    for (const { digest, size } of [one.manifest, one.config, ...one.layers]) {
      const dir = await mkdtemp(join(root, "bad-"));
      writeLayout(dir, [{ top: one.manifest, tag: "x", images: [one] }]);
      // Known to be good before: a check that only trusts its memory would pass.
      await resolve(`oci:${dir}:x`);
      const file = join(dir, "blobs/sha256", digest.slice(7));
      if (damage === "remove") rmSync(file);
      else if (damage === "cut") truncateSync(file, size - 1);
      else {
        const bytes = readFileSync(file);
        bytes[size >> 1] = (bytes[size >> 1] ?? 0) ^ 1;
        writeFileSync(file, bytes);
      }
      const wanted = damage === "remove" ? "ERR_IMAGE_BLOB_MISSING" : "ERR_IMAGE_BLOB_CORRUPT";
      await expect(resolve(`oci:${dir}:x`), `${damage} ${digest}`).rejects.toThrow(code(wanted));
    }
  }
});

test("a layer that is right but not the one of the configuration", async () => {
  const dir = await mkdtemp(join(root, "swap-"));
  const swapped = { ...one, manifest: manifestOf(one.config, [...one.layers].reverse()) };
  writeLayout(dir, [{ top: swapped.manifest, tag: "x", images: [swapped] }]);
  const image = await resolve(`oci:${dir}:x`);
  await expect(verifyDiffIds(image)).rejects.toThrow(/the configuration says/);
  const short = { ...one, manifest: manifestOf(one.config, one.layers.slice(1)) };
  writeLayout(dir, [{ top: short.manifest, tag: "x", images: [short] }]);
  await expect(resolve(`oci:${dir}:x`)).rejects.toThrow(code("ERR_IMAGE_CONFIG"));
});

test("an archive goes into the store, and what is there already is not copied again", async () => {
  const image = await resolve(`oci-archive:${archive}:one`);
  expect(image.digest).toBe(one.manifest.digest);
  expect(image.layers.every((layer) => layer.path.startsWith(store.dir))).toBe(true);
  const before = readdirSync(join(store.dir, "blobs/sha256")).length;
  await resolve(`oci-archive:${archive}:one`);
  expect(readdirSync(join(store.dir, "blobs/sha256"))).toHaveLength(before);
  expect((await resolve(`oci-archive:${archive}:two`)).digest).toBe(two.manifest.digest);
  expect(readdirSync(join(store.dir, "leases"))).toEqual([]);
  expect(await verifyStore(store)).toEqual([]);
});

test("archives cut off anywhere, and things that are none", async () => {
  const bytes = readFileSync(archive);
  const file = join(root, "cut.tar");
  for (const size of [0, 100, 512, 1500, bytes.length >> 1, bytes.length - 12_000]) {
    writeFileSync(file, bytes.subarray(0, size));
    await expect(resolve(`oci-archive:${file}:one`), String(size)).rejects.toThrow(/./);
    await expect(importArchive(createReadStream(file), { store })).rejects.toThrow(/./);
  }
  writeFileSync(file, "this is no archive, but long enough to have a header".repeat(40));
  await expect(resolve(`docker-archive:${file}`)).rejects.toThrow(code("ERR_IMAGE_ARCHIVE"));
  await expect(resolve(`oci-archive:${root}`)).rejects.toThrow(code("ERR_IMAGE_ARCHIVE"));
  await expect(resolve(`oci-archive:${root}/none`)).rejects.toThrow(code("ERR_IMAGE_NOT_FOUND"));
  expect(readdirSync(join(store.dir, "leases"))).toEqual([]);
});

/** A `docker save` archive with what old and new engines do: links, compressed layers. */
function dockerArchive(): string {
  const dir = mkdtempSync(join(root, "docker-"));
  const tars = [base, tarOf("one", noise(1000, 2)), base];
  const config = makeImage({ layers: tars }).config;
  writeFileSync(join(dir, "config.json"), config.bytes);
  mkdirSync(join(dir, "l0"));
  mkdirSync(join(dir, "l2"));
  writeFileSync(join(dir, "l0/layer.tar"), base);
  writeFileSync(join(dir, "one.tar"), gzipSync(tars[1] ?? base));
  symlinkSync("../l0/layer.tar", join(dir, "l2/layer.tar"));
  const manifest = [
    {
      Config: "config.json",
      RepoTags: ["app:1"],
      Layers: ["l0/layer.tar", "one.tar", "l2/layer.tar"],
    },
  ];
  writeFileSync(join(dir, "manifest.json"), JSON.stringify(manifest));
  execFileSync("tar", [
    "-C",
    dir,
    "-cf",
    join(dir, "out.tar"),
    "l0",
    "l2",
    "one.tar",
    "config.json",
    "manifest.json",
  ]);
  return join(dir, "out.tar");
}

test("a docker archive with linked and compressed layers, as file, as stream, compressed", async () => {
  const file = dockerArchive();
  const image = await resolve(`docker-archive:${file}`);
  expect(image.layers.map((layer) => layer.compression)).toEqual(["none", "gzip", "none"]);
  await verifyDiffIds(image);
  await expect(resolve(`docker-archive:${file}:other`)).rejects.toThrow(
    code("ERR_IMAGE_NOT_FOUND"),
  );
  const bytes = readFileSync(file);
  for (const packed of [bytes, gzipSync(bytes), zstdCompressSync(bytes)]) {
    const [loaded] = await importArchive(
      Readable.from([packed.subarray(0, 3), packed.subarray(3)]),
      { store },
    );
    expect(loaded?.name).toBe("docker.io/library/app:1");
    expect(loaded?.digest).toBe(image.digest);
  }
  const [fromOci] = await importArchive(createReadStream(archive), {
    store,
    platform: { os: "linux", architecture: "amd64" },
  });
  expect(fromOci?.digest).toBe(one.manifest.digest);
  expect(readdirSync(join(store.dir, "leases"))).toEqual([]);
});

test("save and load again, both formats; skopeo reads what was saved and the store itself", async () => {
  await resolve(`oci-archive:${archive}:two`);
  const name = await tagImage(store, two.manifest.digest, "app:2");
  for (const format of ["oci-archive", "docker-archive"] as const) {
    const path = join(await mkdtemp(join(root, "saved-")), "image.tar");
    await saveImage({ store, images: ["app:2"], format, path });
    const other = await openStore(await mkdtemp(join(root, "store-")));
    const [loaded] = await importArchive(createReadStream(path), { store: other });
    expect(loaded?.name).toBe(name);
    expect(loaded?.configDigest).toBe(two.config.digest);
    if (loaded !== undefined) await verifyDiffIds(loaded);
    if (hasTool("skopeo")) {
      const inspect = ["inspect", "--config", "--raw", `${format}:${path}`];
      expect(execFileSync("skopeo", inspect).equals(two.config.bytes)).toBe(true);
    }
  }
  if (hasTool("skopeo")) {
    const inspect = ["inspect", "--raw", `oci:${store.dir}:${name}`];
    expect(execFileSync("skopeo", inspect).equals(two.manifest.bytes)).toBe(true);
    // And what another tool writes into the store is an image of it.
    execFileSync("skopeo", [
      "copy",
      "-q",
      `oci:${layout}:one`,
      `oci:${store.dir}:docker.io/library/put:1`,
    ]);
    expect((await findImage(store, "put:1")).descriptor.digest).toBe(one.manifest.digest);
  }
});

test("list, inspect, shared blobs counted once, remove", async () => {
  await resolve(`oci-archive:${archive}:one`);
  await tagImage(store, one.manifest.digest, "a:1");
  await tagImage(store, "a:1", "b");
  const images = await listImages(store);
  expect(images.map(({ name }) => name)).toEqual([
    "docker.io/library/a:1",
    "docker.io/library/b:latest",
    `oci-archive:${archive}:one`,
  ]);
  expect(images.every(({ complete }) => complete)).toBe(true);
  const size = one.layers.reduce(
    (sum, layer) => sum + layer.size,
    one.config.size + one.manifest.size,
  );
  expect(images[0]?.sizeBytes).toBe(size);
  const use = await diskUse(store);
  expect(use.blobs).toBe(4);
  expect(use.bytes).toBeLessThan(size + 4 * 4096 + 1);
  expect(use.unusedBytes).toBe(0);
  const details = await inspectImage(store, "a:1");
  expect(details.layers.map(({ digest }) => digest)).toEqual(
    one.layers.map(({ digest }) => digest),
  );
  expect(details.config.user).toBe("7");
  // The same base layer, compressed alike, is in another image too: it must stay.
  const armOnly = { store, platform: { os: "linux", architecture: "arm64" } };
  await resolveImage(parseImageSource(`oci-archive:${archive}:two`), armOnly);
  expect((await removeImage(store, "a:1")).blobs).toBe(0);
  expect((await removeImage(store, "b")).blobs).toBe(0);
  expect((await removeImage(store, `oci-archive:${archive}:one`)).blobs).toBe(3);
  expect(await verifyStore(store)).toEqual([]);
  await expect(removeImage(store, "a:1")).rejects.toThrow(code("ERR_IMAGE_NOT_FOUND"));
});

test("what a VM or a running process uses is neither removed nor pruned", async () => {
  const name = `oci-archive:${archive}:one`;
  await resolve(name);
  await pin(store, "vm-12345678", [one.manifest.digest as `sha256:${string}`]);
  await expect(removeImage(store, name)).rejects.toThrow(code("ERR_IMAGE_IN_USE"));
  await pruneStore(store, { all: true });
  expect(await verifyStore(store)).toEqual([]);
  expect(await listImages(store)).toHaveLength(1);
  await unpin(store, "vm-12345678");
  const lease = await takeLease(store, "a boot");
  await lease.protect([one.manifest.digest as `sha256:${string}`]);
  await expect(removeImage(store, name)).rejects.toThrow(/use|remove/);
  expect((await pruneStore(store, { all: true })).blobs).toBe(0);
  await lease.release();
  expect((await pruneStore(store)).blobs).toBe(0);
  expect((await pruneStore(store, { all: true })).blobs).toBe(4);
  expect(readdirSync(join(store.dir, "blobs/sha256"))).toEqual([]);
  await expect(pin(store, "../x", [])).rejects.toThrow(code("ERR_VALIDATION_PIN"));
});

test("a lease goes while nobody looks at the leases", async () => {
  const lease = await takeLease(store, "a pull");
  const looking = await store.lock();
  const gone = lease.release();
  // Long enough for one that does not wait.
  await Promise.race([gone, sleep(200)]);
  expect(existsSync(lease.dir)).toBe(true);
  looking.release();
  await gone;
  expect(existsSync(lease.dir)).toBe(false);
});

test.each([
  ["prune", async () => await pruneStore(store)],
  ["daemon", async () => await sweepLeases(store, AbortSignal.timeout(60_000))],
])("a killed process's lease and temporary files go with the next %s", async (_, sweep) => {
  const source = `import { openStore, takeLease } from ${JSON.stringify(join(import.meta.dirname, "../images.ts"))};
    import { writeFileSync } from "node:fs";
    const store = await openStore(${JSON.stringify(store.dir)});
    globalThis.lease = await takeLease(store, "test");
    writeFileSync(lease.dir + "/big", "x"); console.log("ready"); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", source], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise((done) => child.stdout.once("data", done));
  await sweep();
  expect(readdirSync(join(store.dir, "leases"))).toHaveLength(1);
  const gone = new Promise((done) => child.once("close", done));
  child.kill("SIGKILL");
  await gone;
  await sweep();
  expect(readdirSync(join(store.dir, "leases"))).toEqual([]);
});

test("prune while images come in and go: what was resolved is whole", async () => {
  for (let round = 0; round < 10; round += 1) {
    const lease = await takeLease(store, "test");
    const options = { store, lease, platform: { os: "linux", architecture: "amd64" } };
    const source = parseImageSource(`oci-archive:${archive}:two`);
    const prune = async () => pruneStore(store, { all: true });
    const [image] = await Promise.all([resolveImage(source, options), prune(), prune()]);
    await prune();
    expect(image.layers.every((layer) => existsSync(layer.path))).toBe(true);
    await lease.release();
    expect((await prune()).blobs).toBeGreaterThan(3);
  }
});

test("a tree so small that tar ends before anybody reads is not taken for an empty one", async () => {
  const tree = await mkdtemp(join(root, "tree-"));
  writeFileSync(join(tree, "f"), "x");
  // The thread pool is busy, as on a loaded machine: opening a file takes longer than tar.
  const load = { on: true };
  const busy = Array.from({ length: 8 }, async () => {
    while (load.on) await promisify(pbkdf2)("password", "salt", 20_000, 32, "sha512");
  });
  try {
    const image = await resolve(`rootfs:${tree}`);
    expect(image.layers[0]?.size).toBe(10_240);
  } finally {
    load.on = false;
    await Promise.all(busy);
  }
});

test("a bare directory: the same tree gives the same image; tar files plain and compressed", async () => {
  const tree = await mkdtemp(join(root, "tree-"));
  mkdirSync(join(tree, "etc"));
  writeFileSync(join(tree, "etc/f"), "x");
  symlinkSync("f", join(tree, "etc/l"));
  const first = await resolve(`rootfs:${tree}`);
  readFileSync(join(tree, "etc/f"));
  // tar counts in seconds where it writes the time of the moment.
  await new Promise((done) => setTimeout(done, 1001));
  expect((await resolve(`rootfs:${tree}`)).digest).toBe(first.digest);
  const tar = join(root, "tree.tar");
  execFileSync("tar", ["-C", tree, "-cf", tar, "."]);
  const plain = await resolve(`rootfs:${tar}`);
  for (const [name, bytes] of [
    ["gz", gzipSync(readFileSync(tar))],
    ["zst", zstdCompressSync(readFileSync(tar))],
  ] as const) {
    writeFileSync(`${tar}.${name}`, bytes);
    const packed = await resolve(`rootfs:${tar}.${name}`);
    expect(packed.layers[0]?.diffId).toBe(plain.layers[0]?.diffId);
    expect((await resolve(`rootfs:${tar}.${name}`)).digest).toBe(packed.digest);
  }
  truncateSync(`${tar}.gz`, 60);
  await expect(resolve(`rootfs:${tar}.gz`)).rejects.toThrow(code("ERR_IMAGE_LAYER_CORRUPT"));
  truncateSync(`${tar}.zst`, 60);
  await expect(resolve(`rootfs:${tar}.zst`)).rejects.toThrow(code("ERR_IMAGE_LAYER_CORRUPT"));
  await expect(resolve("rootfs:/dev/null")).rejects.toThrow(code("ERR_IMAGE_ROOTFS"));
  await expect(resolve(`rootfs:${root}/none`)).rejects.toThrow(code("ERR_IMAGE_NOT_FOUND"));
});

test("zstd with several frames, skippable ones and cuts; gzip with several members", async () => {
  const parts = [noise(70_000, 1), Buffer.alloc(0), Buffer.alloc(300_000, 7), noise(10, 2)];
  const whole = Buffer.concat(parts);
  const skip = Buffer.from([0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
  const zstd = Buffer.concat(parts.flatMap((part) => [skip, zstdCompressSync(part)]).concat(skip));
  const gzip = Buffer.concat(parts.map((part) => gzipSync(part)));
  for (const [compression, packed] of [
    ["zstd", zstd],
    ["gzip", gzip],
  ] as const) {
    for (const step of [1, 7, 1000, 1 << 20]) {
      if (step < 7 && packed.length > 100_000) continue;
      const got: Buffer[] = [];
      const pieces = (function* cut() {
        for (let at = 0; at < packed.length; at += step) yield packed.subarray(at, at + step);
      })();
      await inflate(
        Readable.from(pieces),
        compression,
        async (bytes) => void got.push(Buffer.from(bytes)),
        "x",
      );
      expect(Buffer.concat(got).equals(whole), `${compression} by ${step}`).toBe(true);
    }
    for (const cut of [packed.length - 25, 40]) {
      await expect(
        inflate(Readable.from([packed.subarray(0, cut)]), compression, () => undefined, "x"),
        `${compression} cut at ${cut}`,
      ).rejects.toThrow(code("ERR_IMAGE_LAYER_CORRUPT"));
    }
  }
});

test("an engine that answers, one that is silent, none", async () => {
  const context = {
    store,
    lease: await takeLease(store, "test"),
    platform: { os: "linux", architecture: "amd64" },
  };
  const socket = join(root, "docker.sock");
  const env = { DOCKER_HOST: `unix://${socket}` };
  const get = async () =>
    resolveDockerDaemon({ name: "app:1" }, "docker-daemon:app:1", context, env);
  await expect(get()).rejects.toThrow(code("ERR_IMAGE_DOCKER"));
  const file = dockerArchive();
  const server = createServer((request, response) => {
    if (request.url === "/_ping") response.end("OK");
    else if (request.url === "/images/app%3A1/get") createReadStream(file).pipe(response);
    else response.writeHead(404).end();
  });
  await new Promise<void>((done) => server.listen(socket, done));
  try {
    expect((await get()).layers).toHaveLength(3);
    await expect(
      resolveDockerDaemon({ name: "none" }, "docker-daemon:none", context, env),
    ).rejects.toThrow(code("ERR_IMAGE_NOT_FOUND"));
  } finally {
    server.closeAllConnections();
    server.close();
    await context.lease.release();
  }
});

test("a damaged index and a foreign version are errors with a cause", async () => {
  writeFileSync(join(store.dir, "index.json"), "{");
  await expect(listImages(store)).rejects.toThrow(code("ERR_IMAGE_LAYOUT"));
  writeFileSync(join(store.dir, "oci-layout"), '{"imageLayoutVersion":"9.0.0"}');
  await expect(openStore(store.dir)).rejects.toThrow(code("ERR_IMAGE_STORE_LAYOUT"));
  expect(blob("x", Buffer.from("")).size).toBe(0);
});
