import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import type { Caller } from "../../access/gate.ts";
import { Builds, buildSchema } from "./builds.ts";
import type { ControlContext } from "./context.ts";
import { E2bStore } from "./store.ts";
import { makeTemplate, removeTemplate } from "./template-calls.ts";
import { resolveTemplate, templateId } from "./templates.ts";

/** What a build says of itself. */
interface Status {
  status: string;
  reason?: { message: string };
}

/** Builds a template, and gives how that has ended. */
type Build = (name: string, wish: Parameters<Builds["begin"]>[3]) => Promise<Status>;

/** A gateway's templates, with none of them yet. */
async function templates(): Promise<{
  store: E2bStore;
  caller: Caller;
  build: Build;
  /** Ask for a build. @returns does it, and gives how that has ended */
  begin: (name: string) => Promise<(wish: Parameters<Build>[1]) => Promise<Status>>;
  /** Snapshots that were removed. */
  removed: string[];
  context: ControlContext;
}> {
  const directory = await mkdtemp(join(tmpdir(), "vmsan-builds-"));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const store = new E2bStore(directory);
  const removed: string[] = [];
  const snapshots = {
    remove: async (id: string) => await Promise.resolve(void removed.push(id)),
  };
  const context = { store, vmsan: { snapshots } } as unknown as ControlContext;
  const caller = { key: { project: "ours", admin: false } } as unknown as Caller;
  const builds = new Builds(context);
  const begin = async (name: string): Promise<(wish: Parameters<Build>[1]) => Promise<Status>> => {
    const made = (await makeTemplate(context, caller, { name })) as {
      templateID: string;
      buildID: string;
    };
    const kept = (await store.load()).templates.find(({ id }) => id === made.templateID);
    if (kept === undefined) throw new Error("the template was not kept");
    return async (wish) => {
      await builds.begin(caller, kept, made.buildID, wish);
      for (;;) {
        const now = (await builds.status(kept.id, made.buildID, 0)) as Status;
        if (now.status !== "building") return now;
      }
    };
  };
  const build: Build = async (name, wish) => await (await begin(name))(wish);
  return { store, caller, build, begin, removed, context };
}

test("a build that fails while it is asked about is never told as one of another gateway", async () => {
  const { build } = await templates();
  for (let i = 0; i < 20; i += 1) {
    expect(await build("mine", { steps: [], fromImageRegistry: {} })).toMatchObject({
      status: "error",
      reason: { message: expect.stringContaining("registries") as string },
    });
  }
});

test("a template goes on from what its origin has set, and pip may install in what stands for E2B's", async () => {
  const { store, caller, build } = await templates();
  const first = buildSchema.parse({
    fromImage: "e2bdev/base",
    steps: [
      { type: "ENV", args: ["A", "1"] },
      { type: "USER", args: ["root"] },
    ],
  });
  const steps = [{ type: "ENV", args: ["B", "2"] }];
  const second = buildSchema.parse({ fromTemplate: "first", steps });
  expect(await build("first", first)).toMatchObject({ status: "ready" });
  expect(await build("second", second)).toMatchObject({ status: "ready" });
  expect(await resolveTemplate(store, caller, "second")).toMatchObject({
    runtime: "e2b",
    user: "root",
    env: ["PIP_BREAK_SYSTEM_PACKAGES=1", "A=1", "B=2"],
  });
  expect((await resolveTemplate(store, caller, "base")).env).toEqual([
    "PIP_BREAK_SYSTEM_PACKAGES=1",
  ]);
});

test("a template can be used while it is built anew, and when that fails; one that never was built is none", async () => {
  const { store, caller, build, begin } = await templates();
  const fails = { steps: [], fromImageRegistry: {} };
  const works = (image: string): Parameters<Builds["begin"]>[3] =>
    buildSchema.parse({ fromImage: image, steps: [] });
  const image = async (): Promise<unknown> => (await resolveTemplate(store, caller, "mine")).image;

  expect(await build("mine", fails)).toMatchObject({ status: "error" });
  await expect(image()).rejects.toMatchObject({ status: 400 });
  await expect(templateId(store, caller, "mine")).rejects.toMatchObject({ status: 404 });

  expect(await build("mine", works("first"))).toMatchObject({ status: "ready" });
  expect(await image()).toBe("first");
  expect(await build("mine", fails)).toMatchObject({ status: "error" });
  expect(await image()).toBe("first");

  const [second, third] = [await begin("mine"), await begin("mine")];
  expect(await image()).toBe("first");
  expect(await third(works("third"))).toMatchObject({ status: "ready" });
  expect(await image()).toBe("third");
  // It was asked for before, and comes to its end later.
  expect(await second(works("second"))).toMatchObject({ status: "ready" });
  expect(await image()).toBe("third");
  expect(await templateId(store, caller, "mine")).toMatch(/^tpl-/);
});

test("a build that goes takes its snapshot with it: an old one without a tag, and one that ends too late", async () => {
  const { store, caller, begin, removed, context } = await templates();
  for (let i = 0; i < 99; i += 1) await begin("mine");
  const last = await begin("mine");
  await store.change(({ templates: [template] }) => {
    for (const [i, build] of template?.builds.entries() ?? []) build.snapshot = `snap-${i}`;
  });
  await begin("mine");
  expect(removed).toEqual(["snap-0"]);

  const parts = Builds.prototype as unknown as { make: () => Promise<object> };
  const make = vi.spyOn(parts, "make").mockImplementation(async () => {
    await removeTemplate(context, caller, "mine");
    return { snapshot: "snap-late" };
  });
  onTestFinished(() => make.mockRestore());
  await expect(last(buildSchema.parse({ fromImage: "x", steps: [] }))).rejects.toThrow();
  await expect.poll(() => removed.at(-1)).toBe("snap-late");
});
