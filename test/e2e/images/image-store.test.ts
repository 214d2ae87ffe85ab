/** `vmsan image …` on the store: names, disk use, archives that skopeo reads, and what prune spares. */
import { execFileSync } from "node:child_process";
import { createReadStream } from "node:fs";
import { readFile, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { installation, temporary } from "../../fixtures/ladder.ts";
import { startFaulty } from "../../registry/faulty.ts";
import type { FaultyRegistry } from "../../registry/faulty.ts";
import { makeImage, noise, tarOf } from "../../registry/fixture.ts";
import type { FixtureImage } from "../../registry/fixture.ts";
import { busyboxLayer, tool } from "../images.ts";
import { errorCode, vmsan, vmsanJson, vmsanOk } from "../support.ts";

interface Listed {
  images: { names: string[]; digest: string; usedBy: string[]; sizeBytes: number }[];
  blobBytes: number;
}

const here = installation("kernel");
const work = temporary();
let registry: FaultyRegistry;
let app: FixtureImage;
let other: FixtureImage;

const name = (tag: string): string => `${registry.host}/test/app:${tag}`;
const list = (): Promise<Listed> => vmsanJson<Listed>(["image", "ls"], here);
const pull = (tag: string): Promise<string> => vmsanOk(["image", "pull", name(tag)], here);
const prune = (
  ...flags: string[]
): Promise<{ images: number; blobs: number; freedBytes: number }> =>
  vmsanJson(["image", "prune", ...flags], here);

/** Bytes that the files of a directory occupy. */
async function allocated(path: string): Promise<number> {
  let sum = 0;
  for (const file of await readdir(path)) sum += (await stat(join(path, file))).blocks * 512;
  return sum;
}

beforeAll(async () => {
  const tree = join(work.path, "tree");
  await tool("mkdir", tree);
  await busyboxLayer(tree);
  await tool("tar", "-C", tree, "-cf", join(work.path, "tree.tar"), ".");
  const base = await readFile(join(work.path, "tree.tar"));
  app = makeImage({ layers: [base, tarOf("own", noise(300_000, 1))] });
  other = makeImage({ layers: [base, tarOf("own", noise(300_000, 2))] });
  registry = await startFaulty({
    repository: "test/app",
    tags: { one: app.manifest, two: other.manifest },
    images: [app, other],
  });
});

afterAll(() => registry.stop());

test("ls, inspect, tag, rm; shared blobs are counted once", async () => {
  await pull("one");
  await pull("two");
  await vmsanOk(["image", "tag", name("one"), "local/app:mine"], here);
  const { images, blobBytes } = await list();
  expect(images.map(({ names }) => names)).toEqual(
    expect.arrayContaining([[name("one"), "docker.io/local/app:mine"].toSorted(), [name("two")]]),
  );
  expect(blobBytes).toBe(await allocated(join(here.dir, "images/blobs/sha256")));
  expect(blobBytes).toBeLessThan(images.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0));
  const details = await vmsanJson<{ digest: string; layers: { digest: string }[] }>(
    ["image", "inspect", "local/app:mine"],
    here,
  );
  expect(details.digest).toBe(app.manifest.digest);
  expect(details.layers.map(({ digest }) => digest)).toEqual(app.layers.map((l) => l.digest));
  await vmsanJson(["image", "rm", name("one")], here);
  expect(await errorCode(["image", "inspect", name("one")], here)).toBe("ERR_IMAGE_NOT_FOUND");
  // The other name keeps everything; taking that as well frees the own layer and no shared one.
  expect(await prune()).toMatchObject({ blobs: 0 });
  await vmsanJson(["image", "rm", "local/app:mine"], here);
  const left = await readdir(join(here.dir, "images/blobs/sha256"));
  expect(left.toSorted()).toEqual(
    [other.manifest, other.config, ...other.layers].map((b) => b.digest.slice(7)).toSorted(),
  );
});

test("save and load; skopeo reads both kinds", async () => {
  await pull("one");
  for (const format of ["oci-archive", "docker-archive"]) {
    const file = join(work.path, `${format}.tar`);
    await vmsanJson(["image", "save", "--format", format, "-o", file, name("one")], here);
    const config = JSON.parse(await tool("skopeo", "inspect", "--config", `${format}:${file}`)) as {
      rootfs: { diff_ids: string[] };
    };
    const wanted = JSON.parse(app.config.bytes.toString()) as typeof config;
    expect(config.rootfs).toEqual(wanted.rootfs);
    // Copied back by skopeo, it is the same image.
    const again = join(work.path, `${format}-again.tar`);
    await tool("skopeo", "copy", "-q", `${format}:${file}`, `docker-archive:${again}:x/again:1`);
    const input = createReadStream(again);
    const chunks: Buffer[] = [];
    for await (const chunk of input) chunks.push(chunk as Buffer);
    const loaded = await vmsanJson<{ images: { names: string[]; configDigest: string }[] }>(
      ["image", "load"],
      { dir: here.dir, input: Buffer.concat(chunks) },
    );
    expect(loaded.images.map(({ names }) => names)).toEqual([["docker.io/x/again:1"]]);
    expect(loaded.images[0]?.configDigest).toBe(app.config.digest);
    await vmsanJson(["image", "rm", "x/again:1"], here);
  }
  // To standard output and from there: no file in between.
  const stream = await vmsan(["image", "save", "-o", "-", name("one")], here);
  await vmsanJson(["image", "rm", name("one")], here);
  await vmsanJson(["image", "load"], { dir: here.dir, input: stream.stdout });
  expect((await list()).images.flatMap(({ names }) => names)).toContain(name("one"));
  const code = await errorCode(["image", "load"], { dir: here.dir, input: "no archive at all" });
  expect(code).toBe("ERR_IMAGE_ARCHIVE");
});

test("an archive on standard input is an image source", async () => {
  const archive = await readFile(join(work.path, "docker-archive.tar"));
  const run = [
    "run",
    "--memory",
    "256",
    "docker-archive:-",
    "--",
    "/bin/busybox",
    "wc",
    "-c",
    "/own",
  ];
  const said = await vmsanOk(run, { dir: here.dir, input: archive });
  expect(said).toBe("300000 /own\n");
  const bad = { dir: here.dir, input: archive };
  expect(await errorCode(["image", "pull", "docker-archive:-:no/such:tag"], bad)).toBe(
    "ERR_IMAGE_NOT_FOUND",
  );
});

test("disk writes a file system, once", async () => {
  const disk = join(work.path, "app.ext4");
  const summary = await vmsanJson<{ entries: number }>(
    ["image", "disk", "-o", disk, "--size", "1gb", name("one")],
    here,
  );
  expect(summary.entries).toBeGreaterThan(5);
  await tool("e2fsck", "-fn", disk);
  expect(await errorCode(["image", "disk", "-o", disk, name("one")], here)).toBe("ERR_DISK_EXISTS");
});

test("prune spares what a running or stopped VM or a pull uses", async () => {
  await pull("two");
  const vm = await vmsanJson<{ vmId: string }>(
    ["create", "--memory", "256", "--from-image", name("one")],
    here,
  );
  // Its name goes, its image stays.
  expect(await errorCode(["image", "rm", name("one")], here)).toBe("ERR_IMAGE_IN_USE");
  await prune("--all");
  expect((await list()).images.map(({ names, usedBy }) => ({ names, usedBy }))).toEqual([
    { names: [name("one")], usedBy: [vm.vmId] },
  ]);
  await vmsanOk(["stop", vm.vmId], here);
  await prune("--all");
  await vmsanOk(["start", vm.vmId], here);
  const size = ["exec", vm.vmId, "--", "/bin/busybox", "stat", "-c", "%s", "/own"];
  expect(await vmsanOk(size, here)).toBe("300000\n");

  // Prune again and again while another image comes in.
  registry.fault = (seen) =>
    seen.kind === "blob" ? { kind: "slow", bytes: 50_000, everyMs: 100 } : undefined;
  const progress = { pulling: true };
  const pulled = pull("two").finally(() => (progress.pulling = false));
  let rounds = 0;
  while (progress.pulling) {
    await prune("--all");
    rounds += 1;
  }
  await pulled;
  expect(rounds).toBeGreaterThan(0);
  registry.fault = () => undefined;
  await vmsanOk(["rm", "-f", vm.vmId], here);
  expect(await prune("--all")).toMatchObject({ blobs: expect.any(Number) });
  expect(await list()).toMatchObject({ images: [], blobBytes: 0 });
  expect(await readdir(join(here.dir, "images/partial"))).toEqual([]);
});

test("sources, archives and directories whose names are not UTF-8", () => {
  const script = `set -eu
    odd="$1/$(printf 'd\\377')"; mkdir "$odd"; cd "$odd"; mkdir t; echo hi >t/f
    a=$(printf 'a\\376.tar')
    "$0" image pull "rootfs:$odd/t"
    "$0" image save "rootfs:$odd/t" -o "$a" | grep -qaFx "$a"
    "$0" image inspect "rootfs:$odd/t" >/dev/null
    "$0" image pull "oci-archive:$a"
    "$0" image load -i "$a"
    "$0" image rm "rootfs:$odd/t" "oci-archive:$odd/$a" >/dev/null
    "$0" image disk "rootfs:t" -o disk 2>&1 | grep -aq ERR_VALIDATION_PATH
    test ! -e disk`;
  const bin = join(import.meta.dirname, "../../../bin/vmsan");
  const said = execFileSync("sh", ["-c", script, bin, work.path], {
    env: { ...process.env, VMSAN_DIR: here.dir },
    encoding: "utf8",
  });
  const [first = "", second, loaded, ...more] = said.trim().split("\n");
  expect(first).toMatch(/^sha256:[0-9a-f]{64}$/);
  expect([second, loaded, more]).toEqual([first, `localhost/imported:${first.slice(7, 19)}`, []]);
});
