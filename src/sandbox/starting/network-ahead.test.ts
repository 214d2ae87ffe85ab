/** A VM's network is made while its image comes. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import type { CreateRequest } from "../../model/api.ts";
import { createRequest } from "../../client/options.ts";
import type { CreateOptions } from "../../client/options.ts";
import { closedPolicy } from "../../model/policy.ts";
import { VmRecords } from "../records/records.ts";
import { Sandboxes } from "../sandboxes.ts";
import type { Stages } from "../stages.ts";
import { fakeStages, quietLog } from "../testing.ts";

/** Sandboxes that say what becomes of networks and of images. */
async function told(): Promise<{
  dir: string;
  said: string[];
  stages: Stages;
  sandboxes: Sandboxes;
}> {
  const dir = await mkdtemp(join(tmpdir(), "vmsan-ahead-"));
  onTestFinished(async () => await rm(dir, { recursive: true }));
  const said: string[] = [];
  const stages = fakeStages(dir);
  stages.networks = {
    ...stages.networks,
    attach: async () => {
      said.push("attach");
      return await Promise.resolve({});
    },
    detach: async () => {
      said.push("detach");
      return await Promise.resolve({ removed: [], failed: [] });
    },
  };
  const sandboxes = new Sandboxes(new VmRecords(join(dir, "vms")), stages, quietLog);
  return { dir, said, stages, sandboxes };
}

const request = (options: CreateOptions = {}): CreateRequest => ({
  ...createRequest({ driver: "fake", warm: false, ...options }),
  policy: closedPolicy("deny-all"),
});
const work = { signal: new AbortController().signal, progress: (): void => undefined };

test("its network is made once, while its image comes; without an image nothing of it is left", async () => {
  const { dir, said, stages, sandboxes } = await told();
  stages.prepareBase = async () => {
    await expect.poll(() => said).toEqual(["attach"]);
    return { rootfs: join(dir, "base.ext4"), runtime: "base" };
  };
  const { id } = await sandboxes.create(request(), work, () => undefined);
  expect(said).toEqual(["attach"]);
  await sandboxes.remove(id, true);
  stages.prepareBase = async () => {
    await Promise.resolve();
    throw new Error("no such image");
  };
  said.length = 0;
  await expect(sandboxes.create(request(), work, () => undefined)).rejects.toThrow("no such image");
  expect(said).toEqual(["attach", "detach"]);
  expect(await readdir(join(dir, "vms"))).toEqual([]);
});

test("published ports do not listen before the image is there", async () => {
  const { dir, said, stages, sandboxes } = await told();
  stages.prepareBase = async () => {
    // As long as everything else that is made ahead may take.
    await setImmediate();
    said.push("image");
    return { rootfs: join(dir, "base.ext4"), runtime: "base" };
  };
  const { id } = await sandboxes.create(request({ ports: ["8080:80"] }), work, () => undefined);
  expect(said).toEqual(["image", "attach"]);
  await sandboxes.remove(id, true);
});
