import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { lstatSync, readFileSync, readlinkSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { VolumeStore } from "./store.ts";

let root = "";
let store: VolumeStore;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "vmsan-shared-"));
  store = new VolumeStore(join(root, "volumes"));
});
afterAll(() => rm(root, { recursive: true }));

const { signal } = new AbortController();
const isRoot = process.getuid?.() === 0;
const GIB = 2 ** 30;
const inside = (name: string, ...path: string[]): string =>
  join(root, "volumes", name, "data", ...path);

/** A volume with a disk, in which debugfs has done these commands in the directory that guests see. */
async function written(name: string, commands: string[]): Promise<string> {
  await store.create({ name, sizeBytes: GIB, labels: { a: "b" } });
  const script = join(root, "script");
  await writeFile(script, ["cd data", ...commands, ""].join("\n"));
  execFileSync("debugfs", ["-w", "-f", script, store.diskPath(name)], { stdio: "ignore" });
  return store.diskPath(name);
}

/** What a guest may leave in a volume. */
async function content(name: string): Promise<string> {
  const file = join(root, "content");
  await writeFile(file, "content");
  return await written(name, [
    `write ${file} file`,
    "ln file again",
    "sif file links_count 2",
    "sif file mode 0104751",
    ...(isRoot ? ["sif file uid 7", "sif file gid 100000"] : []),
    "ea_set file user.colour red",
    "symlink link /etc/passwd",
    "mkdir sub",
    "sif sub mode 042770",
    "mknod disk b 8 0",
    "mknod pipe p",
  ]);
}

/** Everything in a shared volume, in words. */
function seen(name: string): Record<string, string> {
  const names = ["file", "again", "link", "sub", "pipe", "disk"];
  return Object.fromEntries(
    names.flatMap((path) => {
      const found = lstatSync(inside(name, path), { throwIfNoEntry: false });
      if (found === undefined) return [];
      const owner = isRoot ? `${found.uid}:${found.gid}` : "-";
      return [[path, `${found.mode.toString(8)} ${owner} ${found.nlink}`]];
    }),
  );
}

const OWNED = isRoot ? ["7:100000", "0:0"] : ["-", "-"];
const SEEN = {
  file: `104751 ${OWNED[0]} 2`,
  again: `104751 ${OWNED[0]} 2`,
  link: `120777 ${OWNED[1]} 1`,
  sub: `42770 ${OWNED[1]} 2`,
  pipe: expect.stringMatching(/^10/) as string,
};

test("a shared volume is a directory that nobody else on the host enters; what a disk has it has not", async () => {
  const made = await store.create({ name: "plain", labels: {}, shared: true });
  expect(made).toMatchObject({ shared: true, fsLabel: "" });
  expect(await store.directory("plain", false)).toBe(inside("plain"));
  expect(lstatSync(join(root, "volumes")).mode & 0o777).toBe(0o700);
  expect(lstatSync(join(root, "volumes", "plain")).mode & 0o777).toBe(0o700);
  expect(lstatSync(inside("plain")).mode & 0o7777).toBe(0o755);
  await writeFile(inside("plain", "big"), Buffer.alloc(1 << 20, 1));
  const { sizeBytes, storedBytes } = await store.sizes(made);
  expect([sizeBytes, await store.limit("plain")]).toEqual([10 * GIB, 10 * GIB]);
  expect(storedBytes).toBeGreaterThanOrEqual(1 << 20);
  const refused = { code: "ERR_VOLUME_SHARED", fix: expect.stringMatching(/./) as string };
  await expect(store.grow("plain", GIB)).rejects.toMatchObject({ code: "ERR_VOLUME_SIZE" });
  await store.grow("plain", 11 * GIB);
  expect(await store.limit("plain")).toBe(11 * GIB);
  await expect(store.disk("plain", true)).rejects.toMatchObject(refused);
  const ofKeys = { name: "no", labels: { "vmsan.project": "p" }, shared: true as const };
  await expect(store.create(ofKeys)).rejects.toMatchObject(refused);
  await store.create({ name: "of-keys", sizeBytes: GIB, labels: { "vmsan.project": "p" } });
  await expect(store.share("of-keys", signal)).rejects.toMatchObject(refused);
  await store.remove("of-keys");
  await mkdir(inside("plain", "locked", "in"), { recursive: true });
  await chmod(inside("plain", "locked"), 0);
  expect(await store.remove("plain")).toBeGreaterThanOrEqual(1 << 20);
  expect(await store.list()).toEqual([]);
});

test("what was on a volume's disk is in the shared one: owners, modes, links, attributes, and no device", async () => {
  const disk = await content("made");
  const record = await store.share("made", signal);
  expect(record).toMatchObject({ name: "made", labels: { a: "b" }, shared: true, fsLabel: "" });
  expect(await store.limit("made")).toBe(GIB);
  expect(seen("made")).toEqual(SEEN);
  expect(readFileSync(inside("made", "again"), "utf8")).toBe("content");
  expect(readlinkSync(inside("made", "link"))).toBe("/etc/passwd");
  const colour = execFileSync("getfattr", [
    "--only-values",
    "-n",
    "user.colour",
    inside("made", "file"),
  ]);
  expect(colour.toString()).toBe("red");
  expect(lstatSync(disk, { throwIfNoEntry: false })).toBeUndefined();
  expect((await readdir(join(root, "volumes", "made"))).toSorted()).toEqual([
    "data",
    "volume.json",
  ]);
  // Once more changes nothing.
  expect(await store.share("made", signal)).toEqual(record);
});

test("an ordinary user, who could not keep the owners, gets none of it", async () => {
  const disk = await written("owned", ["mkdir of-7", "sif of-7 uid 7"]);
  const user = vi.spyOn(process, "getuid").mockReturnValue(1234);
  await expect(store.share("owned", signal)).rejects.toMatchObject({
    code: "ERR_VOLUME_OWNERS",
    why: expect.stringMatching(/data\/of-7 belongs to 7:0/) as string,
  });
  user.mockRestore();
  expect(await store.get("owned")).not.toHaveProperty("shared");
  expect(await readdir(join(root, "volumes", "owned"))).toHaveLength(2);
  expect(lstatSync(disk).isFile()).toBe(true);
  await store.remove("owned");
});

test("an archive of it makes another one of the same content", async () => {
  const archive = await store.export("made");
  await expect(store.remove("made")).rejects.toMatchObject({ code: "ERR_VOLUME_IN_USE" });
  const copy = await store.import("copy", archive, signal);
  expect(copy).toMatchObject({ shared: true, labels: { a: "b" }, sizeBytes: GIB });
  expect(seen("copy")).toEqual(SEEN);
  await store.remove("copy");
});

test.each([
  ["a name that leads out", "mkdir data; echo x >../out; echo y >shared.json", "../out"],
  ["a link in the directory's place", "ln -s /etc data; echo y >shared.json", "data"],
  ["a link in the document's place", "mkdir data; ln -s /etc/hosts shared.json", "data"],
  ["another file", "mkdir data; echo y >shared.json; echo x >more", "data more"],
  ["a document that is none", "mkdir data; echo y >shared.json", "data"],
])("an import with %s leaves nothing", async (what, script, names) => {
  const dir = join(root, what.replaceAll(" ", "-"), "in");
  await mkdir(dir, { recursive: true });
  execFileSync("sh", ["-c", script], { cwd: dir });
  const tar = execFileSync("tar", ["-cP", "-C", dir, "shared.json", ...names.split(" ")]);
  const before = await readdir(join(root, "volumes"));
  await expect(store.import("bad", Readable.from([tar]), signal)).rejects.toMatchObject({
    code: "ERR_VOLUME_ARCHIVE",
  });
  expect(await readdir(join(root, "volumes"))).toEqual(before);
});

test.each([
  ["a directory that has two names", ["mkdir one", "mkdir one/two", "ln one one/two/three"]],
  [
    "a file longer than any disk",
    ["mknod pipe p", "write /etc/passwd f", "sif f size 8796093022208"],
  ],
])("a disk with %s stays what it is", async (_, commands) => {
  const disk = await written("hostile", commands);
  await expect(store.share("hostile", signal)).rejects.toMatchObject({
    code: "ERR_VOLUME_DAMAGED",
  });
  expect(await store.get("hostile")).not.toHaveProperty("shared");
  expect(lstatSync(disk).isFile()).toBe(true);
  expect((await readdir(join(root, "volumes", "hostile"))).toSorted()).toEqual([
    "volume.ext4",
    "volume.json",
  ]);
  await store.remove("hostile");
});

test("an empty one is filled once, whole, also when what was ready was left by a killed daemon", async () => {
  const disk = await content("image");
  await store.create({ name: "filled", labels: {}, shared: true });
  await Promise.all([
    store.fill("filled", disk, "/data", signal),
    store.fill("filled", disk, "/data", signal),
  ]);
  expect(seen("filled")).toEqual(SEEN);
  await rm(inside("filled", "file"));
  await store.fill("filled", disk, "/data", signal);
  expect(Object.keys(seen("filled"))).not.toContain("file");
  // Killed between two names: the next one goes on.
  const ready = join(root, "volumes", "filled", "fill");
  await mkdir(join(ready, "file"), { recursive: true, mode: 0o700 });
  await chmod(ready, 0o1777);
  await store.directory("filled", false);
  expect(lstatSync(inside("filled", "file")).isDirectory()).toBe(true);
  expect(lstatSync(inside("filled")).mode & 0o7777).toBe(0o1777);
  // A place that is not in the image is empty.
  await store.create({ name: "empty", labels: {}, shared: true });
  await store.fill("empty", disk, "/data/sub/none", signal);
  expect(await readdir(inside("empty"))).toEqual([]);
  await store.fill("empty", "/dev/null", "/data", signal);
  expect(await readdir(inside("empty"))).toEqual([]);
});

test("what a killed daemon has left beside a volume is swept", async () => {
  await mkdir(inside("image"), { recursive: true });
  await mkdir(join(root, "volumes", "image", ".tmp-0123"));
  await writeFile(join(root, "volumes", "filled", "volume.ext4"), "");
  expect((await store.sweep()).toSorted()).toEqual([
    "filled/volume.ext4",
    "image/.tmp-0123",
    "image/data",
  ]);
  expect(await store.get("image")).not.toHaveProperty("shared");
  expect(Object.keys(seen("filled"))).toContain("file");
});

test("while it is being made, nobody gets its disk", async () => {
  const sharing = store.share("image", signal);
  await expect(store.disk("image", false)).rejects.toMatchObject({ code: "ERR_VOLUME_IN_USE" });
  await expect(store.share("image", signal)).rejects.toMatchObject({ code: "ERR_VOLUME_IN_USE" });
  await sharing;
  expect(seen("image")).toEqual(SEEN);
});

test("whenever it is killed while it is made, one of both is whole, and nothing else is left", async () => {
  const disk = await content("killed");
  const dir = join(root, "volumes", "killed");
  const saved = join(root, "saved");
  // Node.js writes out what is a hole.
  const copy = (from: string, to: string): Buffer =>
    execFileSync("cp", ["-a", "--sparse=always", from, to]);
  copy(dir, saved);
  const script = `const { VolumeStore } = await import(process.argv[1]);
    process.stdout.write("x");
    await new VolumeStore(process.argv[2]).share("killed", new AbortController().signal);
    process.stdout.write("y");`;
  const source = new URL("./store.ts", import.meta.url).href;
  const argv = ["--input-type=module", "-e", script, source, join(root, "volumes")];
  const ends = new Set<string>();
  let took = 0;
  // The kills are spread over the time that it takes, however long that is here.
  for (const part of [10, 0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]) {
    await rm(dir, { recursive: true, force: true });
    copy(saved, dir);
    const child = spawn(process.execPath, argv, { stdio: ["ignore", "pipe", "inherit"] });
    await once(child.stdout, "data");
    child.stdout.resume();
    const begun = performance.now();
    const closed = once(child, "close");
    if (part < 1) await Promise.race([closed, sleep(part * took)]);
    else {
      await closed;
      took = performance.now() - begun;
    }
    child.kill("SIGKILL");
    await closed;
    const next = new VolumeStore(join(root, "volumes"));
    // What it had started ends by itself, when it hears nothing any more.
    await expect.poll(async () => await next.sweep().catch(() => ["busy"])).toEqual([]);
    const { shared = false } = await next.get("killed");
    ends.add(String(shared));
    expect((await readdir(dir)).toSorted()).toEqual([
      shared ? "data" : "volume.ext4",
      "volume.json",
    ]);
    if (!shared) await next.share("killed", signal);
    expect(seen("killed")).toEqual(SEEN);
  }
  expect(ends).toEqual(new Set(["true", "false"]));
  expect(disk).toBe(join(dir, "volume.ext4"));
});

test("its parts are named through no link", async () => {
  expect(await store.isFile("image", "sub")).toBe(false);
  expect(await store.isFile("image", "file")).toBe(true);
  for (const part of ["link", "link/x", "none", "file/x", "pipe"]) {
    await expect(store.isFile("image", part), part).rejects.toMatchObject({
      code: "ERR_VOLUME_PART",
    });
  }
});
