/** Pulls and loads whose daemon is killed at any moment: never half an image, nothing left, the next try works. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startFaulty } from "../registry/faulty.ts";
import type { FaultyRegistry } from "../registry/faulty.ts";
import { makeImage, noise, tarOf, writeLayout } from "../registry/fixture.ts";
import { tool } from "./images.ts";
import { freshDir, removeDir, tree, vmsan, vmsanJson, vmsanOk } from "./support.ts";

const ROUNDS = 6;
const image = makeImage({
  layers: [1, 2, 3].map((seed) => tarOf(`file${seed}`, noise(1_500_000, seed))),
});

let dir = "";
let work = "";
let registry: FaultyRegistry;
beforeAll(async () => {
  dir = await freshDir([]);
  work = await mkdtemp(join(tmpdir(), "vmsan-kills-"));
  registry = await startFaulty({
    repository: "library/app",
    tags: { latest: image.manifest },
    images: [image],
  });
  registry.fault = ({ kind }) =>
    kind === "blob" ? { kind: "slow", bytes: 200_000, everyMs: 20 } : undefined;
});
afterAll(async () => {
  await removeDir(dir);
  await registry.stop();
  await rm(work, { recursive: true, force: true });
});

/** Kill the daemon in the middle of a command, at another moment each time. */
async function killedDuring(args: string[], round: number): Promise<void> {
  const { pid } = await vmsanJson<{ pid: number }>(["daemon", "start"], { dir });
  const command = vmsan(args, { dir });
  await sleep(150 + (round * 600) / ROUNDS + Math.random() * 60);
  process.kill(pid, "SIGKILL");
  // It says so, or asks the next daemon; it does not hang and does not claim what is not so.
  const { code, stderr } = await command;
  if (code !== 0) expect(stderr).toMatch(/error: .*\[ERR_/);
}

/** What the store must look like: whole images or none, and nothing that is in the making. */
async function whole(name: string): Promise<void> {
  const images = join(dir, "images");
  const { images: listed } = await vmsanJson<{ images: { names: string[]; digest: string }[] }>(
    ["image", "ls"],
    { dir },
  );
  expect(listed.map(({ digest }) => digest)).toEqual([image.manifest.digest]);
  const saved = join(work, "saved.tar");
  await vmsanOk(["image", "save", name, "-o", saved], { dir });
  await rm(saved);
  await vmsanOk(["image", "prune"], { dir });
  expect(await readdir(join(images, "leases"))).toEqual([]);
  expect((await tree(images)).filter((path) => /\.tmp|partial\/./.test(path))).toEqual([]);
}

test(`pull, with ${ROUNDS} daemons killed under it`, async () => {
  const name = `${registry.host}/library/app`;
  for (let round = 0; round < ROUNDS; round += 1) {
    await killedDuring(["image", "pull", name], round);
    if (round % 3 === 2) await vmsan(["image", "rm", name], { dir });
  }
  await vmsanOk(["image", "pull", name], { dir });
  await whole(name);
  await vmsanOk(["image", "rm", name], { dir });
  await vmsanOk(["image", "prune", "--all"], { dir });
});

test(`load, with ${ROUNDS} daemons killed under it`, async () => {
  const layout = join(work, "layout");
  writeLayout(layout, [{ top: image.manifest, tag: "latest", images: [image] }]);
  const archive = join(work, "app.tar");
  await tool(
    "skopeo",
    "copy",
    "--insecure-policy",
    `oci:${layout}:latest`,
    `oci-archive:${archive}:example.org/app:1`,
  );
  for (let round = 0; round < ROUNDS; round += 1) {
    await killedDuring(["image", "load", "-i", archive], round);
    if (round % 3 === 2) await vmsan(["image", "rm", "example.org/app:1"], { dir });
  }
  await vmsanOk(["image", "load", "-i", archive], { dir });
  await whole("example.org/app:1");
});
