import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, expect, test } from "vitest";
import { PrivateNetworkStore } from "./store.ts";

const root = await mkdtemp(join(tmpdir(), "vmsan-networks-"));
let count = 0;
let dir = "";
beforeEach(() => {
  dir = join(root, String((count += 1)));
});
afterAll(async () => await rm(root, { recursive: true, force: true }));

const wish = (name: string, subnet?: string) => ({
  name,
  project: "",
  labels: { a: "b" },
  ...(subnet === undefined ? {} : { subnet }),
});

test("networks made at the same time get names and ranges of their own, and the next daemon has them", async () => {
  const store = new PrivateNetworkStore(dir);
  const results = await Promise.allSettled(
    ["a", "b", "a", "c"].map(async (name) => await store.create(wish(name))),
  );
  expect(results.map(({ status }) => status)).toEqual([
    "fulfilled",
    "fulfilled",
    "rejected",
    "fulfilled",
  ]);
  const code = "ERR_PRIVATE_NETWORK_NAME_TAKEN";
  await expect(store.create(wish("b"))).rejects.toMatchObject({ code });
  expect(store.list().map(({ subnet }) => subnet)).toEqual([
    "198.18.0.0/24",
    "198.18.1.0/24",
    "198.18.2.0/24",
  ]);
  expect(new PrivateNetworkStore(dir).list()).toEqual(store.list());
  await store.remove("b");
  expect(() => store.get("b")).toThrow(
    expect.objectContaining({ code: "ERR_PRIVATE_NETWORK_NOT_FOUND" }),
  );
  expect(new PrivateNetworkStore(dir).list().map(({ name }) => name)).toEqual(["a", "c"]);
  expect((await store.create(wish("d"))).subnet).toBe("198.18.1.0/24");
});

test("a network that cannot be written takes neither name nor range", async () => {
  const store = new PrivateNetworkStore(join(dir, "below"));
  await writeFile(dir, "a file");
  await expect(store.create(wish("a"))).rejects.toThrow();
  expect(store.list()).toEqual([]);
});

test("damaged documents are shown and can be removed; half-written ones go", async () => {
  const store = new PrivateNetworkStore(dir);
  await store.create(wish("good"));
  await store.create(wish("other"));
  const text = await readFile(join(dir, "good.json"), "utf8");
  await writeFile(join(dir, "torn.json"), text.slice(0, 30));
  await writeFile(join(dir, "renamed.json"), text);
  await writeFile(
    join(dir, "range.json"),
    text.replace("good", "range").replace("198.18.0.0/24", "x"),
  );
  await writeFile(join(dir, ".tmp-0123456789abcdef"), "");
  const next = new PrivateNetworkStore(dir);
  expect([...next.damaged.keys()].toSorted()).toEqual(["range", "renamed", "torn"]);
  expect(() => next.get("torn")).toThrow(
    expect.objectContaining({ code: "ERR_PRIVATE_NETWORK_DAMAGED" }),
  );
  await expect(next.create(wish("torn"))).rejects.toMatchObject({
    code: "ERR_PRIVATE_NETWORK_NAME_TAKEN",
  });
  for (const name of next.damaged.keys()) await next.remove(name);
  expect((await readdir(dir)).toSorted()).toEqual(["good.json", "other.json"]);
});

test("names", async () => {
  const store = new PrivateNetworkStore(dir);
  for (const name of [
    "none",
    "host",
    "allow-all",
    "",
    ".",
    "../x",
    "a/b",
    "a b",
    "-a",
    "x".repeat(129),
  ]) {
    await expect(store.create(wish(name))).rejects.toMatchObject({
      code: "ERR_VALIDATION_NETWORK",
    });
  }
  expect((await store.create(wish("Proj_default.1-x"))).name).toBe("Proj_default.1-x");
});
