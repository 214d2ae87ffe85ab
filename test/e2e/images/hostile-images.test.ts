/** Pulls and loads whose daemon is killed at any moment: never half an image, nothing left, the next try works. */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { installation, temporary } from "../../fixtures/ladder.ts";
import { serveFaulty } from "../../registry/faulty.ts";
import type { FaultyRegistry } from "../../registry/faulty.ts";
import { makeImage, noise, tarOf, writeLayout } from "../../registry/fixture.ts";
import { tool } from "../images.ts";
import { tree, vmsan, vmsanJson, vmsanOk } from "../support.ts";

const ROUNDS = 6;
const image = makeImage({
  layers: [1, 2, 3].map((seed) => tarOf(`file${seed}`, noise(1_500_000, seed))),
});

const here = installation("nothing");
const work = temporary();
let registry: FaultyRegistry;
beforeAll(async () => {
  registry = await serveFaulty(image);
  registry.fault = ({ kind }) =>
    kind === "blob" ? { kind: "slow", bytes: 200_000, everyMs: 20 } : undefined;
});
afterAll(() => registry.stop());

/** Kill the daemon in the middle of a command, at another moment each time. */
async function killedDuring(args: string[], round: number): Promise<void> {
  const { pid } = await vmsanJson<{ pid: number }>(["daemon", "start"], here);
  const command = vmsan(args, here);
  await sleep(150 + (round * 600) / ROUNDS + Math.random() * 60);
  process.kill(pid, "SIGKILL");
  // It says so, or asks the next daemon; it does not hang and does not claim what is not so.
  const { code, stderr } = await command;
  if (code !== 0) expect(stderr).toMatch(/error: .*\[ERR_/);
}

/** What the store must look like: whole images or none, and nothing that is in the making. */
async function whole(name: string): Promise<void> {
  const images = join(here.dir, "images");
  const { images: listed } = await vmsanJson<{ images: { names: string[]; digest: string }[] }>(
    ["image", "ls"],
    here,
  );
  expect(listed.map(({ digest }) => digest)).toEqual([image.manifest.digest]);
  const saved = join(work.path, "saved.tar");
  await vmsanOk(["image", "save", name, "-o", saved], here);
  await rm(saved);
  await vmsanOk(["image", "prune"], here);
  // That of a command goes behind its answer.
  const leases = async (): Promise<string[]> => await readdir(join(images, "leases"));
  await expect.poll(leases, { timeout: 10_000 }).toEqual([]);
  expect((await tree(images)).filter((path) => /\.tmp|partial\/./.test(path))).toEqual([]);
}

test(`pull, with ${ROUNDS} daemons killed under it`, async () => {
  const name = `${registry.host}/library/app`;
  for (let round = 0; round < ROUNDS; round += 1) {
    await killedDuring(["image", "pull", name], round);
    if (round % 3 === 2) await vmsan(["image", "rm", name], here);
  }
  await vmsanOk(["image", "pull", name], here);
  await whole(name);
  await vmsanOk(["image", "rm", name], here);
  await vmsanOk(["image", "prune", "--all"], here);
});

test(`load, with ${ROUNDS} daemons killed under it`, async () => {
  const layout = join(work.path, "layout");
  writeLayout(layout, [{ top: image.manifest, tag: "latest", images: [image] }]);
  const archive = join(work.path, "app.tar");
  await tool(
    "skopeo",
    "copy",
    "--insecure-policy",
    `oci:${layout}:latest`,
    `oci-archive:${archive}:example.org/app:1`,
  );
  for (let round = 0; round < ROUNDS; round += 1) {
    await killedDuring(["image", "load", "-i", archive], round);
    if (round % 3 === 2) await vmsan(["image", "rm", "example.org/app:1"], here);
  }
  await vmsanOk(["image", "load", "-i", archive], here);
  await whole("example.org/app:1");
});
