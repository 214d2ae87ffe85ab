/** Lists, however long: of VMs, and of what is in a guest. */
import { mkdir, writeFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { join } from "node:path";
import { json } from "node:stream/consumers";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Vmsan } from "../client/vmsan.ts";
import type { VmRecord } from "../model/vm.ts";
import { fakeDaemon } from "./testing.ts";
import type { FakeDaemon } from "./testing.ts";

const MIB = 1 << 20;
/** The images of this many VMs have a megabyte of configuration. */
const COUNT = 20;

let daemon: FakeDaemon;
let vmsan: Vmsan;
/** The one VM that runs. */
let made: string;

beforeEach(async () => {
  daemon = await fakeDaemon();
  vmsan = new Vmsan({ dir: daemon.dir, start: false });
  const vm = await vmsan.create({ driver: "fake", networkPolicy: "none", project: "large" });
  made = vm.id;
  const { entries } = daemon.sandboxes;
  const first = entries.get(vm.id);
  if (first === undefined) throw new Error("no VM");
  const config = { env: [`A=${"x".repeat(MIB)}`] };
  const image = { name: "large", digest: "sha256:0", config } as unknown as VmRecord["image"];
  for (let i = 0; i < COUNT; i += 1) {
    const id = `vm-${String(i).padStart(8, "0")}`;
    // As old as one another, or older than the one that was made.
    const createdAt = `2020-01-01T00:00:0${i % 2}.000Z`;
    const project = i === 7 ? "small" : "large";
    const record = { ...first.record, id, createdAt, project, image } as VmRecord;
    entries.set(id, { ...first, record });
  }
});

afterEach(async () => {
  for (let i = 0; i < COUNT; i += 1)
    daemon.sandboxes.entries.delete(`vm-${String(i).padStart(8, "0")}`);
  await daemon.close();
});

test("comes in parts that are bounded, each VM once, oldest first", async () => {
  const sizes: number[] = [];
  for (let after: string | undefined, begun = false; after !== undefined || !begun; begun = true) {
    const page = await vmsan.page(after === undefined ? {} : { after });
    sizes.push(JSON.stringify(page).length);
    // What is removed meanwhile keeps its place.
    daemon.sandboxes.entries.delete(page.next?.split(" ")[1] ?? "");
    after = page.next;
  }
  expect(sizes.length).toBe(3);
  expect(Math.max(...sizes)).toBeLessThan(10 * MIB);
  const left = await vmsan.list();
  expect(left.length).toBe(COUNT + 1 - 2);
  expect(new Set(left.map(({ id }) => id)).size).toBe(left.length);
  const times = left.map(({ createdAt }) => createdAt);
  expect(times).toEqual(times.toSorted());
  expect(left[0]?.image?.config.env[0]?.length).toBe(MIB + 2);
});

test("of one project costs no more than that has", async () => {
  expect((await vmsan.list({ project: "small" })).map(({ id }) => id)).toEqual(["vm-00000007"]);
  expect((await vmsan.list({ project: "large" })).length).toBe(COUNT);
  expect(await vmsan.list({ project: "none" })).toEqual([]);
});

test("a guest's long list is sent bit by bit, and is whole", async () => {
  const directory = join(daemon.dir, "many");
  await mkdir(directory);
  const names = Array.from({ length: 1201 }, (_, i) => `file-${i}`);
  await Promise.all(names.map(async (name) => await writeFile(join(directory, name), "")));
  const path = `/v1/vms/${made}/agent/v1/fs/list`;
  const reply = await vmsan.daemon.download("POST", path, { body: { path: directory } });
  // Of what is made at once the length is known.
  expect((reply as IncomingMessage).headers["content-length"]).toBeUndefined();
  const entries = (await json(reply)) as { name: string }[];
  const listed = entries.map(({ name }) => Buffer.from(name, "base64").toString());
  expect(listed.toSorted()).toEqual(names.toSorted());
});
