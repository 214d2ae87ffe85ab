import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  symlinkSync,
  truncateSync,
} from "node:fs";
import { join } from "node:path";
import { beforeEach, expect, test } from "vitest";
import { temporary } from "../../../../test/fixtures/ladder.ts";
import type { PodRecord } from "../../../schema/pod.ts";
import type { Log } from "../../../util/log.ts";
import { PodStore } from "./store.ts";

const place = temporary();
let dir: string;
let said: string[];
const log = { info: () => undefined, error: (text: string) => said.push(text) } as unknown as Log;
let count = 0;

beforeEach(() => {
  dir = join(place.path, String((count += 1)));
  mkdirSync(dir);
  said = [];
});

const record = (uid: string, restarts = 0): PodRecord => ({
  uid,
  namespace: "team",
  name: `pod ${uid}`,
  restarts,
});
const journal = (): string => join(dir, "pods.jsonl");
const kept = (): PodRecord[] => [...new PodStore(dir).load(log).values()];

test("the newest document of each pod is found again, and none of one that was removed", async () => {
  const store = new PodStore(dir);
  expect(store.load(log).size).toBe(0);
  store.save(record("a"));
  store.save(record("b"));
  store.save(record("a", 3));
  mkdirSync(store.logDir("b", 0), { recursive: true });
  await store.remove("b");
  expect(existsSync(join(dir, "logs/b"))).toBe(false);
  expect(kept()).toEqual([record("a", 3)]);
  // What is read is written anew, without what does not count.
  expect(readFileSync(journal(), "utf8")).toBe(`${JSON.stringify(record("a", 3))}\n`);
  expect(said).toEqual([]);
});

test("half a line, or one that is none, costs nobody else's", () => {
  const store = new PodStore(dir);
  store.load(log);
  for (const uid of ["a", "b"]) store.save(record(uid));
  const { length } = readFileSync(journal());
  truncateSync(journal(), length - 5);
  // As another process goes on, that one reads first; as this one does, which could not write to the end, it does not.
  const next = new PodStore(dir);
  next.save(record("c"));
  expect(kept().map(({ uid }) => uid)).toEqual(["a", "c"]);
  expect(said).toHaveLength(1);
  appendFileSync(journal(), '{"uid":"d"}\nnull\n');
  expect(kept().map(({ uid }) => uid)).toEqual(["a", "c"]);
  expect(said).toHaveLength(3);
});

test("the journal does not grow for ever", () => {
  const store = new PodStore(dir);
  store.load(log);
  store.save(record("a"));
  for (let round = 0; round < 5_000; round += 1) store.save(record("b", round));
  expect(readFileSync(journal(), "utf8").split("\n").length).toBeLessThan(1_100);
  expect(kept()).toEqual([record("a"), record("b", 4_999)]);
});

test("a disk that is too full for another journal costs no document, and leaves nothing", () => {
  const store = new PodStore(dir);
  store.load(log);
  symlinkSync("/dev/full", `${journal()}.new`);
  for (let round = 0; round < 2_500; round += 1) store.save(record("b", round));
  expect(said).toHaveLength(1);
  expect(readdirSync(dir).toSorted()).toEqual(["logs", "pods.jsonl"]);
  // It was tried again.
  expect(readFileSync(journal(), "utf8").split("\n").length).toBeLessThan(1_100);
  expect(kept()).toEqual([record("b", 2_499)]);
});

test("what belongs to no pod goes, with its logs", async () => {
  const store = new PodStore(dir);
  store.load(log);
  for (const uid of ["a", "b"]) store.save(record(uid));
  for (const uid of ["a", "c"]) mkdirSync(store.logDir(uid, 0), { recursive: true });
  await store.sweep((uid) => uid === "a");
  expect(kept()).toEqual([record("a")]);
  expect(existsSync(store.logDir("a", 0))).toBe(true);
  expect(existsSync(join(dir, "logs/c"))).toBe(false);
});
