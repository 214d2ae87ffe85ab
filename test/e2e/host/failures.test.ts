/** What goes wrong ends in a coded error with cause and fix, and leaves nothing behind. */
import { createHash } from "node:crypto";
import { cp, mkdir, readFile, readdir, rm, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { installation, temporary } from "../../fixtures/ladder.ts";
import { busyboxLayer, tool, umociImage } from "../images.ts";
import { errorCode, preparedDir, strayProcesses, tree, vmsan } from "../support.ts";

const here = installation("kernel");
const work = temporary();
let good = "";
beforeAll(async () => {
  good = (await umociImage(join(work.path, "good"), [busyboxLayer])).slice(
    "oci:".length,
    -":latest".length,
  );
});

interface Descriptor {
  digest: string;
  size: number;
  mediaType: string;
}
interface Manifest {
  layers: Descriptor[];
  config: Descriptor;
}

/** A copy of the good layout, to be broken. */
async function copyOf(
  name: string,
): Promise<{ layout: string; manifest: Manifest; blob: (d: Descriptor) => string }> {
  const layout = join(work.path, name);
  await cp(good, layout, { recursive: true });
  const blob = (descriptor: Descriptor): string =>
    join(layout, "blobs/sha256", descriptor.digest.slice(7));
  const index = JSON.parse(await readFile(join(layout, "index.json"), "utf8")) as {
    manifests: Descriptor[];
  };
  const first = index.manifests[0];
  if (first === undefined) throw new Error("an index without manifests");
  return { layout, manifest: JSON.parse(await readFile(blob(first), "utf8")) as Manifest, blob };
}

/** Replace the manifest, with a right digest, and point the index at it. */
async function putManifest(layout: string, manifest: object, mediaType?: string): Promise<void> {
  const bytes = Buffer.from(JSON.stringify(manifest));
  const digest = createHash("sha256").update(bytes).digest("hex");
  await writeFile(join(layout, "blobs/sha256", digest), bytes);
  const path = join(layout, "index.json");
  const index = JSON.parse(await readFile(path, "utf8")) as { manifests: Descriptor[] };
  index.manifests = index.manifests.map((entry) => ({
    ...entry,
    digest: `sha256:${digest}`,
    size: bytes.length,
    mediaType: mediaType ?? entry.mediaType,
  }));
  await writeFile(path, JSON.stringify(index));
}

const run = (image: string): string[] => ["run", "--memory", "256", image, "--", "/bin/true"];

/** Nothing of a failed run is there: no VM, no process but the daemon, no half cache entry. */
async function nothingLeft(): Promise<void> {
  expect(await readdir(join(here.dir, "vms")).catch(() => [])).toEqual([]);
  expect(strayProcesses(here.dir)).toEqual([]);
  const half = (await tree(here.dir)).filter((path) => /\.tmp-|\.building|\/leases\/./.test(path));
  expect(half).toEqual([]);
}

test("a corrupt blob", async () => {
  const { layout, manifest, blob } = await copyOf("corrupt");
  const layer = manifest.layers[0];
  if (layer === undefined) throw new Error("no layer");
  const bytes = await readFile(blob(layer));
  bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 0xff;
  await writeFile(blob(layer), bytes);
  expect(await errorCode(run(`oci:${layout}:latest`), here)).toMatch(/^ERR_(IMAGE|LAYER)_/);
  await nothingLeft();
});

test("a truncated layer", async () => {
  const { layout, manifest, blob } = await copyOf("truncated");
  const layer = manifest.layers[0];
  if (layer === undefined) throw new Error("no layer");
  await truncate(blob(layer), (await stat(blob(layer))).size - 1000);
  expect(await errorCode(run(`oci:${layout}:latest`), here)).toMatch(/^ERR_(IMAGE|LAYER)_/);
  await nothingLeft();
});

test("a wrong media type", async () => {
  const { layout, manifest } = await copyOf("media-type");
  const layers = manifest.layers.map((layer) => ({
    ...layer,
    mediaType: "application/vnd.example.unknown",
  }));
  await putManifest(layout, { ...manifest, layers });
  expect(await errorCode(run(`oci:${layout}:latest`), here)).toMatch(/^ERR_IMAGE_/);
  await nothingLeft();
});

test("a missing manifest, a missing tag, a missing directory", async () => {
  const { layout, blob } = await copyOf("missing");
  const index = JSON.parse(await readFile(join(layout, "index.json"), "utf8")) as {
    manifests: Descriptor[];
  };
  const first = index.manifests[0];
  if (first === undefined) throw new Error("an index without manifests");
  await rm(blob(first));
  expect(await errorCode(run(`oci:${layout}:latest`), here)).toMatch(/^ERR_IMAGE_/);
  expect(await errorCode(run(`oci:${good}:no-such-tag`), here)).toMatch(/^ERR_IMAGE_/);
  expect(await errorCode(run(`oci:${work.path}/nowhere`), here)).toMatch(/^ERR_IMAGE_/);
  expect(await errorCode(run(`docker-archive:${work.path}/nowhere.tar`), here)).toMatch(
    /^ERR_IMAGE_/,
  );
  await nothingLeft();
});

test.runIf(process.getuid?.() === 0)("a full disk while building", async () => {
  const small = join(work.path, "small");
  await mkdir(small);
  const image = await umociImage(join(work.path, "big"), [
    busyboxLayer,
    async (rootfs) =>
      void (await tool(
        "dd",
        "if=/dev/urandom",
        `of=${rootfs}/data`,
        "bs=1M",
        "count=40",
        "status=none",
      )),
  ]);
  await tool("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", small);
  try {
    for (const name of ["kernels", "initramfs", "probes"]) {
      await tool("ln", "-s", join(preparedDir, name), join(small, name));
    }
    expect(await errorCode(run(image), { dir: small })).toMatch(/^ERR_DISK_/);
    expect(await readdir(join(small, "vms"))).toEqual([]);
    const left = (await tree(join(small, "rootfs"))).filter((path) => path.endsWith("disk.ext4"));
    expect(left).toEqual([]);
  } finally {
    await vmsan(["daemon", "stop"], { dir: small });
    await tool("umount", small);
  }
});

test("a kernel that does not boot", async () => {
  const image = `oci:${good}:latest`;
  const text = join(work.path, "not-a-kernel");
  await writeFile(text, "this is no kernel\n");
  expect(await errorCode(["create", "--kernel", text, "--from-image", image], here)).toMatch(
    /^ERR_KERNEL_/,
  );
  const missing = ["create", "--kernel", join(work.path, "nowhere"), "--from-image", image];
  expect(await errorCode(missing, here)).toBe("ERR_SETUP_NO_KERNEL");
  await nothingLeft();
});

test.runIf(process.arch === "x64")("a kernel that finds no timer is booted again", async () => {
  const noTimer = ["--kernel-arg", "nolapic_timer", "--from-image", `oci:${good}:latest`];
  const outcome = await vmsan(["create", "--memory", "128", ...noTimer], here);
  expect(outcome.code).toBe(1);
  expect(outcome.stderr).toContain("trying again");
  expect(outcome.stderr).toMatch(/ERR_VM_BOOT[^]*ERR_AGENT_BOOT_TIMER/);
  await nothingLeft();
});

test("a guest that does not come up: the console's last lines, within the time limit", async () => {
  const broken = join(work.path, "broken.ext4");
  await writeFile(broken, Buffer.alloc(1 << 20));
  const outcome = await vmsan(["create", "--json", "--memory", "256", "--rootfs", broken], here);
  expect(outcome.code).toBe(1);
  const { error } = JSON.parse(outcome.stdout.toString()) as {
    error: { code: string; why: string; details: { console: string[] } };
  };
  expect(error.code).toMatch(/^ERR_VM_BOOT|^ERR_TIMEOUT_AGENT/);
  expect(error.why).toMatch(/vmsan-agent: fatal|Console, last lines|gave up/);
  expect(error.details.console.length).toBeGreaterThan(0);
  await nothingLeft();
});
