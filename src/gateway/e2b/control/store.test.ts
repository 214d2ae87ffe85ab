import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, expect, onTestFinished, test } from "vitest";
import { E2bStore, isMeant } from "./store.ts";
import type { KnownTemplate } from "./store.ts";

let store: E2bStore;

beforeEach(async () => {
  const directory = await mkdtemp(join(tmpdir(), "vmsan-store-"));
  onTestFinished(async () => await rm(directory, { recursive: true, force: true }));
  store = new E2bStore(directory);
});

function template(project: string, name: string): KnownTemplate {
  return { id: `tpl-${project}-${name}`, project, name, createdAt: "now", tags: {}, builds: [] };
}

const add = async (one: KnownTemplate): Promise<number> =>
  await store.change(({ templates }) => templates.push(one));

const ready = (id: string): KnownTemplate["builds"][number] => ({
  id,
  createdAt: "now",
  status: "ready",
});

test("what could not be read again is refused, and what was there stays", async () => {
  await add(template("ours", "one"));
  const long = "x".repeat(5_000);
  for (const build of [
    { ...ready("b"), image: long },
    { ...ready("b"), user: long },
    { ...ready("b"), workdir: long },
    { ...ready("b"), reason: { message: long } },
  ])
    await expect(add({ ...template("ours", "two"), builds: [build] })).rejects.toMatchObject({
      code: "invalid_argument",
    });
  expect((await store.load()).templates.map(({ name }) => name)).toEqual(["one"]);
  // An environment may be long.
  await add({ ...template("ours", "two"), builds: [{ ...ready("b"), env: [`A=${long}`] }] });
  expect((await store.load()).templates.length).toBe(2);
});

test("one project's templates leave others their place, and can be removed again", async () => {
  await store.change(({ templates }) => {
    for (let i = 0; i < 500; i += 1) templates.push(template("ours", `t${i}`));
  });
  await expect(add(template("ours", "more"))).rejects.toMatchObject({
    code: "resource_exhausted",
    status: 403,
  });
  await add(template("other", "first"));
  await store.change((remembered) => {
    remembered.templates = remembered.templates.filter(({ name }) => name !== "t7");
  });
  await add(template("ours", "more"));
  const much = { ...template("ours", "t8"), builds: [{ ...ready("b"), env: [] as string[] }] };
  for (let i = 0; i < 50; i += 1) much.builds[0]?.env?.push(`V${i}=${"x".repeat(100_000)}`);
  await expect(
    store.change((remembered) => {
      remembered.templates = remembered.templates.filter(({ name }) => name !== "t8");
      remembered.templates.push(much);
    }),
  ).rejects.toMatchObject({ code: "resource_exhausted" });
  const builds = Array.from({ length: 2_001 }, (_, i) => ready(`b${i}`));
  await expect(
    store.change(({ templates }) => {
      const one = templates.find(({ project }) => project === "other");
      one?.builds.push(...builds);
    }),
  ).rejects.toMatchObject({ code: "resource_exhausted" });
});

test("a change by another process is seen", async () => {
  expect((await store.load()).templates).toEqual([]);
  const path = (store as unknown as { path: string }).path;
  const other = new E2bStore(join(path, ".."));
  await other.change(({ templates }) => templates.push(template("ours", "one")));
  expect((await store.load()).templates.length).toBe(1);
});

test("a bare name means the own project's, for an admin too; another's is named with its project or by ID", () => {
  const theirs = { id: "tpl-1", project: "theirs", name: "base" };
  const admin = { admin: true, project: "ours" };
  const means = (key: Parameters<typeof isMeant>[0], one: object, refs: string[]): boolean[] =>
    refs.map((ref) => isMeant(key, one as typeof theirs, ref));
  const refs = ["base", "base:default", "ours/base", "theirs/base", "tpl-1"];
  expect(means(admin, theirs, refs)).toEqual([false, false, false, true, true]);
  expect(means({ admin: false, project: "ours" }, theirs, refs)).toEqual(refs.map(() => false));
  expect(means({ admin: false, project: "theirs" }, theirs, refs)).toEqual([
    true,
    true,
    false,
    true,
    true,
  ]);
  const nameless = { id: "s-1", project: "theirs" };
  expect(means(admin, nameless, ["", "theirs/", "undefined", "s-1"])).toEqual([
    false,
    false,
    false,
    true,
  ]);
});
