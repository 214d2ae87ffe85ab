/** Archives as other tools make them: packed in any way, with any names, linked from odd places. */
import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  createReadStream,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { open } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { join } from "node:path";
import { afterAll, beforeEach, expect, test } from "vitest";
import { hasTool } from "../../../test/registry/docker-registry.ts";
import { makeImage, noise, tarOf, writeLayout } from "../../../test/registry/fixture.ts";
import { makeTar } from "../../layers/testing.ts";
import { VmsanError } from "../../model/errors.ts";
import { bytesOfText } from "../../util/byte-text.ts";
import { detectPacking } from "../../util/packing/packing.ts";
import { importArchive, openStore, parseImageSource, resolveImage } from "../images.ts";
import { listImages } from "../store/manage.ts";
import { verifyStore } from "../store/testing.ts";
import type { ContentStore } from "../store/store.ts";
import { listTar } from "./tar.ts";

const root = mkdtempSync(join(tmpdir(), "vmsan-archives-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let store: ContentStore;
beforeEach(async () => {
  store = await openStore(mkdtempSync(join(root, "store-")));
});

const layers = [tarOf("base", noise(100_000, 1)), tarOf("two", noise(10, 2))];
const image = makeImage({ layers, compression: "none" });
const diffIds = makeImage({ layers, compression: "none" }).layers.map((layer) => layer.digest);
const platform = { os: "linux", architecture: "amd64" };

/** An archive of files; directories are made, links by an array with the target. */
function pack(files: Record<string, Buffer | string | [string]>): string {
  const dir = mkdtempSync(join(root, "files-"));
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(join(dir, name, ".."), { recursive: true });
    if (Array.isArray(content)) symlinkSync(content[0], join(dir, name));
    else writeFileSync(join(dir, name), content);
  }
  execFileSync("tar", ["-C", dir, "-cf", `${dir}.tar`, "."]);
  return `${dir}.tar`;
}

/** What `docker save` writes, with these tags and these files as layers. */
function dockerSave(tags: unknown, names = ["a.tar", "b.tar"], more = {}): string {
  const [a, b] = layers;
  const manifest = [{ Config: "c.json", RepoTags: tags, Layers: names }];
  return pack({
    "c.json": image.config.bytes,
    "a.tar": a ?? "",
    "b.tar": b ?? "",
    ...more,
    "manifest.json": JSON.stringify(manifest),
  });
}

/** A file packed by a program. */
function packed(file: string, ...[program = "", ...args]: string[]): string {
  execFileSync(program, [...args, "-k", file]);
  return `${file}.${program === "xz" ? "xz" : "bz2"}`;
}

const resolve = async (text: string) => resolveImage(parseImageSource(text), { store, platform });
const load = async (file: string) =>
  importArchive(createReadStream(file), { store, platform, label: "the archive" });
const found = async (): Promise<string[]> => (await listImages(store)).map(({ name }) => name);
const packers = [["xz"], ["xz", "-9", "--threads=2"], ["bzip2"]].filter(([name = ""]) =>
  hasTool(name),
);

test.each(packers)("archives and root trees packed by %s %s", async (...packer) => {
  const layout = mkdtempSync(join(root, "layout-"));
  writeLayout(layout, [{ top: image.manifest, tag: "one", images: [image] }]);
  execFileSync("tar", ["-C", layout, "-cf", `${layout}.tar`, "oci-layout", "index.json", "blobs"]);
  const oci = packed(`${layout}.tar`, ...packer);
  expect((await resolve(`oci-archive:${oci}:one`)).digest).toBe(image.manifest.digest);
  const docker = packed(dockerSave(["x:1"]), ...packer);
  expect((await resolve(`docker-archive:${docker}`)).layers.map((l) => l.diffId)).toEqual(diffIds);
  expect(await load(docker)).toHaveLength(1);
  const [plain = Buffer.alloc(0)] = layers;
  const tree = join(mkdtempSync(join(root, "tree-")), "tree.tar");
  writeFileSync(tree, plain);
  const packedTree = packed(tree, ...packer);
  for (let turn = 0; turn < 2; turn += 1) {
    const [layer] = (await resolve(`rootfs:${packedTree}`)).layers;
    expect(layer).toMatchObject({ diffId: diffIds[0], digest: diffIds[0], compression: "none" });
    expect(statSync(layer?.path ?? "").size).toBe(plain.length);
  }
  expect(await verifyStore(store)).toEqual([]);
});

test.each(packers)("layers within an archive packed by %s", async (...packer) => {
  const file = join(mkdtempSync(join(root, "layer-")), "l.tar");
  writeFileSync(file, layers[0] ?? "");
  const inner = execFileSync(packer[0] ?? "", ["-c", file]);
  const pulled = await resolve(
    `docker-archive:${dockerSave(["x:1"], ["l", "b.tar"], { l: inner })}`,
  );
  expect(pulled.layers.map(({ digest, compression }) => [digest, compression])).toEqual(
    diffIds.map((digest) => [digest, "none"]),
  );
  // A layout's blobs are used where they are: there the reason is said.
  const layout = mkdtempSync(join(root, "layout-"));
  const odd = makeImage({ layers: [inner], compression: "none" });
  writeLayout(layout, [{ top: odd.manifest, tag: "one", images: [odd] }]);
  await expect(resolve(`oci:${layout}:one`)).rejects.toMatchObject({
    code: "ERR_IMAGE_LAYER_COMPRESSION",
    why: expect.stringContaining(packer[0] ?? "") as string,
  });
});

test("a damaged xz archive, and one without its program", async () => {
  if (!hasTool("xz")) return;
  const good = packed(dockerSave(["x:1"]), "xz");
  const cut = join(root, "cut.tar.xz");
  execFileSync("cp", [good, cut]);
  execFileSync("truncate", ["-s", "-100", cut]);
  await expect(load(cut)).rejects.toMatchObject({ code: "ERR_IMAGE_LAYER_CORRUPT" });
  const path = process.env["PATH"];
  process.env["PATH"] = "/nonexistent";
  try {
    await expect(load(good)).rejects.toMatchObject({
      code: "ERR_SETUP_MISSING_BINARY",
      fix: expect.stringContaining("xz-utils") as string,
    });
  } finally {
    process.env["PATH"] = path;
  }
});

test("how files are packed, told from archives whose first name looks so", () => {
  for (const name of ["BZh9", "BZh91AY", "]", "BZ", "(x", "P*"]) {
    const packing = detectPacking(tarOf(name, Buffer.alloc(0)));
    expect(["none", "lzma"], name).toContain(packing);
  }
  expect(detectPacking(Buffer.from("BZh91AY&SY"))).toBe("bzip2");
  expect(detectPacking(Buffer.from("425a6839177245385090", "hex"))).toBe("bzip2");
  expect(detectPacking(Buffer.from("502a4d18", "hex"))).toBe("zstd");
  expect(detectPacking(Buffer.alloc(0))).toBe("none");
});

test("every name of an archive's image is kept; null is none", async () => {
  const [kept] = await load(dockerSave(["x:1", "x:2", "reg.example/y/z:3", "x:1"]));
  const names = ["docker.io/library/x:1", "docker.io/library/x:2", "reg.example/y/z:3"];
  expect(kept?.names).toEqual(names);
  expect(await found()).toEqual(names);
  for (const none of [null, []]) {
    const [loaded] = await load(dockerSave(none));
    expect(loaded?.name).toMatch(/^localhost\/imported:/);
  }
});

test("a name with a digest is kept only if it is the image's", async () => {
  const lie = `busybox@sha256:${"0".repeat(64)}`;
  const refused = await load(dockerSave([lie])).then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(refused).toBeInstanceOf(VmsanError);
  expect((refused as VmsanError).code).toBe("ERR_IMAGE_DIGEST");
  expect(await found()).toEqual([]);
  for (const [tag, code] of [
    [`reg.example/a@${image.manifest.digest}`, undefined],
    [lie, "ERR_IMAGE_DIGEST"],
  ] as const) {
    const layout = mkdtempSync(join(root, "layout-"));
    writeLayout(layout, [{ top: image.manifest, tag, images: [image] }]);
    execFileSync("tar", [
      "-C",
      layout,
      "-cf",
      `${layout}.tar`,
      "oci-layout",
      "index.json",
      "blobs",
    ]);
    const loading = load(`${layout}.tar`);
    if (code === undefined) expect((await loading)[0]?.name).toBe(tag);
    else await expect(loading).rejects.toMatchObject({ code });
  }
});

test("archives of the time before images had manifests", async () => {
  const [a = "", b = ""] = layers;
  const [low, top] = ["11".repeat(32), "22".repeat(32)];
  const json = (id: string, parent?: string): string =>
    JSON.stringify({
      id,
      parent,
      architecture: "amd64",
      os: "linux",
      container_config: {},
      config: { Cmd: ["/bin/id"], Labels: null },
    });
  const files = (parent: string) => ({
    [`${low}/json`]: json(low, parent),
    [`${low}/layer.tar`]: a,
    [`${top}/json`]: json(top, low),
    [`${top}/layer.tar`]: gzipSync(b),
    repositories: JSON.stringify({ x: { 1: top, old: low }, "reg.example/y": { 2: top } }),
  });
  const file = pack(files(""));
  const loaded = await load(file);
  expect(loaded.map((each) => each.names)).toEqual([
    ["docker.io/library/x:1", "reg.example/y:2"],
    ["docker.io/library/x:old"],
  ]);
  const one = await resolve(`docker-archive:${file}:x:1`);
  expect(one.layers.map((layer) => layer.diffId)).toEqual(diffIds);
  expect(one.config.cmd).toEqual(["/bin/id"]);
  await expect(load(pack(files(top)))).rejects.toMatchObject({ code: "ERR_IMAGE_ARCHIVE" });
});

test("links among an archive's files: from their own place, or from the root as Docker has it", async () => {
  const [a = Buffer.alloc(0)] = layers;
  for (const [target, place] of [
    ["../.a.tar", ".a.tar"],
    [".a.tar", ".a.tar"],
    ["/.a.tar", ".a.tar"],
    ["other.tar", "i/other.tar"],
  ] as const) {
    const file = dockerSave(["x:1"], ["i/layer.tar", "b.tar"], {
      "i/layer.tar": [target],
      [place]: a,
    });
    const pulled = await resolve(`docker-archive:${file}`);
    expect(pulled.layers.map((layer) => layer.digest)).toEqual(diffIds);
  }
  const lost = dockerSave(["x:1"], ["i/layer.tar", "b.tar"], { "i/layer.tar": ["nowhere"] });
  await expect(resolve(`docker-archive:${lost}`)).rejects.toMatchObject({
    code: "ERR_IMAGE_ARCHIVE",
  });
});

test("sources whose names are not UTF-8: used by their bytes, named by them in errors", async () => {
  const dir = `${mkdtempSync(join(root, "odd-"))}/d\uDCFF`;
  mkdirSync(bytesOfText(dir));
  const at = (name: string): string => `${dir}/${name}\uDCFE`;
  copyFileSync(dockerSave(["a/b:1"]), bytesOfText(at("saved")));
  writeFileSync(bytesOfText(at("root.tar")), layers[0] ?? "");
  mkdirSync(bytesOfText(at("root")));
  writeFileSync(Buffer.concat([bytesOfText(at("root")), Buffer.from("/file")]), "x");
  const layout = mkdtempSync(join(root, "layout-"));
  writeLayout(layout, [{ top: image.manifest, tag: "1", images: [image] }]);
  renameSync(layout, bytesOfText(at("layout")));

  const sizes = [];
  for (const source of ["docker-archive:saved", "rootfs:root.tar", "rootfs:root", "oci:layout"]) {
    const [kind = "", name = ""] = source.split(":");
    const text = `${kind}:${at(name)}`;
    const found = await resolve(text);
    expect(found.name).toBe(text);
    sizes.push(found.layers.length);
  }
  expect(sizes).toEqual([2, 1, 1, 2]);
  expect((await found()).includes(`docker-archive:${at("saved")}`)).toBe(true);
  writeFileSync(bytesOfText(at("broken")), "no archive");
  for (const [source, code] of [
    [`docker-archive:${at("broken")}`, "ERR_IMAGE_ARCHIVE"],
    [`docker-archive:${at("none")}`, "ERR_IMAGE_NOT_FOUND"],
    [`rootfs:${at("none")}`, "ERR_IMAGE_NOT_FOUND"],
    [`oci:${at("none")}`, "ERR_IMAGE_NOT_FOUND"],
  ] as const) {
    await expect(resolve(source)).rejects.toMatchObject({
      code,
      message: expect.stringContaining(dir) as string,
    });
  }
  expect(readdirSync(join(store.dir, "leases"))).toEqual([]);
});

test("tables of contents of odd tar archives; broken ones say where", async () => {
  const long = `${"d".repeat(90)}/${"n".repeat(90)}`;
  const file = join(root, "odd.tar");
  const list = async (bytes: Uint8Array) => {
    writeFileSync(file, bytes);
    const handle = await open(file, "r");
    try {
      return [...(await listTar(handle, bytes.length, file)).values()];
    } finally {
      await handle.close();
    }
  };
  const data = Buffer.alloc(9000, "x");
  const bytesOf = (name: string): string => Buffer.from(name).toString("latin1");
  const tar = makeTar([
    { path: "./dir/" },
    { path: `./${long}`, data },
    { path: bytesOf("tüv"), data: "y", xattrs: new Map([["user.a", Buffer.from("b")]]) },
    { path: "link", kind: "symlink", link: long },
    { path: "hard", kind: "hardlink", link: bytesOf("/tüv") },
    { path: "pipe", kind: "fifo" },
  ]);
  const members = await list(tar);
  expect(members.map(({ name, type, size }) => [name, type, size])).toEqual([
    ["dir", "other", 0],
    [long, "file", 9000],
    ["tüv", "file", 1],
    ["link", "symlink", 0],
    ["hard", "link", 0],
    ["pipe", "other", 0],
  ]);
  expect(members.map(({ target }) => target).slice(3, 5)).toEqual([long, "/tüv"]);
  const at = members[1]?.offset ?? 0;
  expect(tar.subarray(at, at + 9000).equals(data)).toBe(true);

  const refused = async (bytes: Uint8Array, why: RegExp) =>
    expect(list(bytes)).rejects.toMatchObject({
      code: "ERR_IMAGE_ARCHIVE",
      why: expect.stringMatching(why) as string,
    });
  await refused(Buffer.alloc(0), /empty/);
  await refused(Buffer.alloc(1024), /empty/);
  await refused(noise(5000, 3), /not a tar archive/);
  await refused(tar.subarray(0, at + 100), /goes beyond the end/);
  const damaged = Buffer.from(tar);
  damaged.writeUInt8(1, at + 9216 + 5);
  await refused(damaged, /checksum is wrong.*byte/);
});
