/** The building process ends with whoever asked for it, and its own end is an error with a code. */
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, expect, test } from "vitest";
import { digestOf } from "../layers/testing.ts";
import type { LayerBlob } from "../model/image.ts";
import { runBuild, type RunRequest } from "./build.ts";

let dir = "";
let layer: LayerBlob;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vmsan-builder-"));
  // A blob that is never there: the build waits inside the kernel until it is ended.
  const path = join(dir, "blob");
  spawnSync("mkfifo", [path]);
  const digest = digestOf(Buffer.alloc(0));
  layer = { digest, size: 1, diffId: digest, compression: "gzip", path };
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const request = (): RunRequest => ({
  output: join(dir, "disk.ext4"),
  format: "disk",
  options: { sizeBytes: 2 ** 24, journal: false },
  identity: { uuid: new Uint8Array(16), hashSeed: new Uint8Array(16) },
});

/** Process IDs of a process's children that are building processes. */
function buildersOf(pid: number): number[] {
  const tasks = readdirSync(`/proc/${pid}/task`);
  const children = tasks.flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, "latin1").trim().split(" "),
  );
  return children
    .filter((child) => child !== "")
    .filter((child) => readFileSync(`/proc/${child}/cmdline`, "latin1").includes("rootfs/builder"))
    .map(Number);
}

/** Wait until a process has a builder that has begun to write. */
async function builderOf(pid: number): Promise<number> {
  for (;;) {
    const [builder] = buildersOf(pid);
    if (builder !== undefined && readdirSync(dir).some((name) => name.includes("building"))) {
      return builder;
    }
    await sleep(20);
  }
}

/** Is this process there, and no zombie? */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "latin1"));
  } catch {
    // ENOENT, ESRCH: it is gone.
    return false;
  }
}

test("its own end is told, and nothing is left", async () => {
  const building = runBuild([layer], request(), { signal: new AbortController().signal });
  const failed = expect(building).rejects.toMatchObject({
    code: "ERR_DISK_BUILD",
    why: expect.stringContaining("SIGKILL") as string,
  });
  process.kill(await builderOf(process.pid), "SIGKILL");
  await failed;
  expect(readdirSync(dir)).toEqual(["blob"]);
});

test("an abort ends it, whatever it waits for", async () => {
  const controller = new AbortController();
  const building = runBuild([layer], request(), { signal: controller.signal });
  const failed = expect(building).rejects.toThrow("enough");
  const pid = await builderOf(process.pid);
  controller.abort(new Error("enough"));
  await failed;
  expect(isRunning(pid)).toBe(false);
  expect(readdirSync(dir)).toEqual(["blob"]);
});

test("it ends when the process that started it is killed", async () => {
  const script = join(dir, "parent.ts");
  writeFileSync(
    script,
    `import { runBuild } from ${JSON.stringify(join(import.meta.dirname, "build.ts"))};
     const [layer, output] = JSON.parse(process.argv[2]);
     const request = { output, format: "disk", options: { sizeBytes: 2 ** 24, journal: false },
       identity: { uuid: new Uint8Array(16), hashSeed: new Uint8Array(16) } };
     await runBuild([layer], request, { signal: new AbortController().signal });`,
  );
  const order = JSON.stringify([layer, request().output]);
  const parent = spawn(process.execPath, [script, order], { stdio: "ignore" });
  if (parent.pid === undefined) throw new Error("not started");
  const pid = await builderOf(parent.pid);
  parent.kill("SIGKILL");
  while (isRunning(pid)) await sleep(20);
});

test("its threads keep their compiled code where the process that started it has its own", () => {
  const script = join(dir, "parent.ts");
  const cache = join(dir, "cache");
  writeFileSync(
    script,
    `import { readdirSync } from "node:fs";
     import { flushCompileCache } from "node:module";
     import { runBuild } from ${JSON.stringify(join(import.meta.dirname, "build.ts"))};
     const { layer, output, cache } = JSON.parse(process.argv[2]);
     const request = { output, format: "disk", options: { sizeBytes: 2 ** 24, journal: false },
       identity: { uuid: new Uint8Array(16), hashSeed: new Uint8Array(16) } };
     delete process.env.NODE_COMPILE_CACHE; // as the daemon does
     flushCompileCache();
     const before = readdirSync(cache, { recursive: true }).length;
     await runBuild([layer], request, { signal: new AbortController().signal });
     console.log(readdirSync(cache, { recursive: true }).length - before);`,
  );
  const path = join(dir, "layer");
  const bytes = gzipSync(Buffer.alloc(1024));
  writeFileSync(path, bytes);
  const [digest, diffId] = [digestOf(bytes), digestOf(Buffer.alloc(1024))];
  const there: LayerBlob = { ...layer, digest, diffId, size: bytes.length, path };
  const order = JSON.stringify({ layer: there, output: request().output, cache });
  const env = { ...process.env, NODE_COMPILE_CACHE: cache };
  const ended = spawnSync(process.execPath, [script, order], { env });
  // The modules of its three programs alone.
  expect(Number(ended.stdout), ended.stderr.toString()).toBeGreaterThan(20);
});
