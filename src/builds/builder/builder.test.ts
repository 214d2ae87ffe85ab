/** Which builder a prune removes, without a VM. */
import { mkdtemp, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import type { Host } from "../../sandbox/host.ts";
import type { Sandboxes } from "../../sandbox/sandboxes.ts";
import { Builder } from "./builder.ts";

const HOUR = 3_600_000;

test("a builder goes whole or not at all: not one that was used lately, or is small", async () => {
  const dir = await mkdtemp(join(tmpdir(), "vmsan-builder-"));
  onTestFinished(() => rm(dir, { recursive: true }));
  const path = join(dir, "disk");
  await writeFile(path, Buffer.alloc(1 << 20, "x"));
  const before = new Date(Date.now() - 5 * HOUR);
  await utimes(path, before, before);
  const removed: string[] = [];
  const disks = [{ path: join(dir, "of-the-image"), readonly: true }, { path }];
  const sandboxes = {
    list: () => (removed.length > 0 ? [] : [{ id: "vm-1", labels: { "vmsan.builder": "1" } }]),
    find: () => ({ record: { spec: { disks } } }),
    remove: async (id: string) => await Promise.resolve(void removed.push(id)),
  } as unknown as Sandboxes;
  const host = { layout: { root: dir, run: dir }, store: undefined } as unknown as Host;
  const builder = new Builder(host, sandboxes, {
    channel: () => Promise.reject(new Error("none")),
  });
  const stays = { removed: false, freedBytes: 0 };
  expect(await builder.prune({ unusedMs: 6 * HOUR })).toEqual(stays);
  expect(await builder.prune({ keepBytes: 2 << 20 })).toEqual(stays);
  expect(await builder.prune({ unusedMs: 4 * HOUR, keepBytes: 1 << 19 })).toEqual({
    removed: true,
    freedBytes: 1 << 20,
  });
  expect(removed).toEqual(["vm-1"]);
  expect(await builder.prune()).toEqual(stays);
});
