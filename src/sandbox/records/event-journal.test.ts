import { appendFile, mkdtemp, readFile, readdir, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { VmRecord } from "../../model/vm.ts";
import type { Entry } from "./entry.ts";
import { EventJournal } from "./event-journal.ts";
import { Events } from "./events.ts";
import { tellUntold } from "./untold-events.ts";

let directory: string;
let path: string;
const complaints: string[] = [];
const log = { info: () => undefined, error: (message: string) => void complaints.push(message) };

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmsan-journal-"));
  path = join(directory, "run/events.jsonl");
  complaints.length = 0;
});

afterEach(async () => await rm(directory, { recursive: true, force: true }));

/** What a daemon that begins now finds, and its events. */
function begin(capacity = 100): { journal: EventJournal; events: Events } {
  const journal = new EventJournal(path, capacity, log);
  return { journal, events: new Events(journal) };
}

const tell = (events: Events, ...images: string[]): number[] =>
  images.map((image) => events.add({ type: "image.removed", data: { image } }).seq);
const images = (events: Events): unknown[] => [...events.kept(0)].map(({ data }) => data["image"]);

test("the next daemon goes on from the last number, with all that was told", () => {
  const [, second = 0] = tell(begin().events, "a", "b");
  // It was killed: nothing was closed.
  const { events } = begin();
  expect(images(events)).toEqual(["a", "b"]);
  expect(tell(events, "c")).toEqual([second + 1]);
  expect(images(begin().events)).toEqual(["a", "b", "c"]);
  expect(complaints).toEqual([]);
});

test("wherever a write was cut, what is whole before it is there and the next is written well", async () => {
  tell(begin().events, "a", "b");
  const whole = await readFile(path, "utf8");
  const last = whole.lastIndexOf("{");
  for (let length = whole.length - 1; length >= last; length -= 7) {
    await writeFile(path, whole);
    await truncate(path, length);
    const { events } = begin();
    // Without its line end alone the line is whole.
    const there = length === whole.length - 1 ? ["a", "b"] : ["a"];
    expect(images(events)).toEqual(there);
    tell(events, "c");
    expect(images(begin().events)).toEqual([...there, "c"]);
  }
});

test("lines that are none, of another boot, or with a gap before them are not believed", async () => {
  tell(begin().events, "a", "b", "c");
  const whole = await readFile(path, "utf8");
  const [head = "", a = "", b = "", c = ""] = whole.split("\n");
  const cases: [string[], string[]][] = [
    [[head, a, c], ["c"]],
    [
      [head, a, "{", b, "null", c],
      ["a", "b", "c"],
    ],
    [[head, a, b.replace('"data"', '"date"'), c], ["c"]],
    [[a, b, c], []],
    [[head.replace(/"bootId":"[^"]+"/, '"bootId":"other"'), a, b, c], []],
    [["\0".repeat(4096)], []],
    [[], []],
  ];
  for (const [lines, expected] of cases) {
    await writeFile(path, lines.map((line) => `${line}\n`).join(""));
    expect([lines, images(begin().events)]).toEqual([lines, expected]);
  }
});

test("it is bounded, and leaves nothing beside it", async () => {
  const { events } = begin(10);
  for (let n = 1; n <= 95; n += 1) tell(events, String(n));
  const lines = (await readFile(path, "utf8")).trim().split("\n");
  expect(lines.length).toBeLessThanOrEqual(21);
  expect(images(begin(10).events).at(-1)).toBe("95");
  expect(await readdir(join(directory, "run"))).toEqual(["events.jsonl"]);
});

test("a journal that cannot be written ends, and events go on", async () => {
  const { journal, events } = begin();
  tell(events, "a");
  journal.close();
  tell(events, "b");
  expect(images(events)).toEqual(["a", "b"]);
  // A directory in its place.
  await rm(join(directory, "run"), { recursive: true });
  await appendFile(join(directory, "run"), "a file");
  const next = begin();
  expect(complaints.length).toBeGreaterThan(0);
  tell(next.events, "c");
  expect(images(next.events)).toEqual(["c"]);
});

test("what a daemon did and was killed before it told it is told by the next", () => {
  const { events } = begin();
  const subject = (id: string): { id: string; project: string } => ({ id, project: "p" });
  for (const id of ["gone", "ended", "slept", "woke", "same"]) {
    events.vm("vm.created", subject(id));
    events.vm("vm.started", subject(id), {});
  }
  events.vm("vm.suspended", subject("woke"));
  const record = (id: string, status: string): [string, Entry] => {
    const createdAt =
      id === "old" ? "2000-01-01T00:00:00.000Z" : new Date(Date.now() + 1000).toISOString();
    const own = { ...subject(id), status, createdAt, spec: { disks: [], kernelArgs: [] } };
    const defaults = { env: [] };
    return [id, { record: { ...own, defaults } as unknown as VmRecord } as Entry];
  };
  const entries = new Map([
    record("ended", "stopped"),
    record("slept", "suspended"),
    record("woke", "stopped"),
    record("same", "suspended"),
    record("new", "stopped"),
    record("old", "stopped"),
  ]);
  events.vm("vm.suspended", subject("same"));
  const before = events.last;
  tellUntold(events, entries);
  const told = events.since(before).map(({ type, vm }) => `${vm?.id} ${type.slice(3)}`);
  expect(told).toEqual([
    "gone stopped",
    "gone removed",
    "ended stopped",
    "slept suspended",
    "woke stopped",
    "new created",
    "new stopped",
  ]);
  // And once only.
  const after = events.last;
  tellUntold(events, entries);
  expect(events.last).toBe(after);
});
