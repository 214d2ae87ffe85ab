/** A VM's network is made while its image comes. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { createRequest } from "../../client/options.ts";
import { closedPolicy } from "../../model/policy.ts";
import { VmRecords } from "../records/records.ts";
import { Sandboxes } from "../sandboxes.ts";
import type { Stages } from "../stages.ts";
import { fakeStages, quietLog } from "../testing.ts";

test("its network is made once, while its image comes; without an image nothing of it is left", async () => {
  const dir = await mkdtemp(join(tmpdir(), "vmsan-ahead-"));
  onTestFinished(async () => await rm(dir, { recursive: true }));
  const asked = Promise.withResolvers<void>();
  const said: string[] = [];
  const stages = fakeStages(dir);
  const networks: Stages["networks"] = {
    ...stages.networks,
    attach: async () => {
      said.push("attach");
      asked.resolve();
      return await Promise.resolve({});
    },
    detach: async () => {
      said.push("detach");
      return await Promise.resolve({ removed: [], failed: [] });
    },
  };
  const prepared = { rootfs: join(dir, "base.ext4"), runtime: "base" };
  stages.networks = networks;
  stages.prepareBase = async () => {
    await asked.promise;
    return prepared;
  };
  const sandboxes = new Sandboxes(new VmRecords(join(dir, "vms")), stages, quietLog);
  const request = {
    ...createRequest({ driver: "fake", warm: false }),
    policy: closedPolicy("deny-all"),
  };
  const work = { signal: new AbortController().signal, progress: (): void => undefined };
  const { id } = await sandboxes.create(request, work, () => undefined);
  expect(said).toEqual(["attach"]);
  await sandboxes.remove(id, true);
  stages.prepareBase = async () => {
    await Promise.resolve();
    throw new Error("no such image");
  };
  said.length = 0;
  await expect(sandboxes.create(request, work, () => undefined)).rejects.toThrow("no such image");
  expect(said).toEqual(["attach", "detach"]);
  expect(await readdir(join(dir, "vms"))).toEqual([]);
});
