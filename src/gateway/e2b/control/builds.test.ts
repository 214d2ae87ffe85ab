import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import type { Caller } from "../../access/gate.ts";
import { Builds, buildSchema } from "./builds.ts";
import type { ControlContext } from "./context.ts";
import { E2bStore } from "./store.ts";
import { makeTemplate } from "./template-calls.ts";
import { resolveTemplate } from "./templates.ts";

/** What a build says of itself. */
interface Status {
  status: string;
  reason?: { message: string };
}

/** Builds a template, and gives how that has ended. */
type Build = (name: string, wish: Parameters<Builds["begin"]>[3]) => Promise<Status>;

/** A gateway's templates, with none of them yet. */
async function templates(): Promise<{ store: E2bStore; caller: Caller; build: Build }> {
  const directory = await mkdtemp(join(tmpdir(), "vmsan-builds-"));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const store = new E2bStore(directory);
  const context = { store } as unknown as ControlContext;
  const caller = { key: { project: "ours", admin: false } } as unknown as Caller;
  const builds = new Builds(context);
  const build: Build = async (name, wish) => {
    const made = (await makeTemplate(context, caller, { name })) as {
      templateID: string;
      buildID: string;
    };
    const kept = (await store.load()).templates.find(({ id }) => id === made.templateID);
    if (kept === undefined) throw new Error("the template was not kept");
    await builds.begin(caller, kept, made.buildID, wish);
    for (;;) {
      const now = (await builds.status(kept.id, made.buildID, 0)) as Status;
      if (now.status !== "building") return now;
    }
  };
  return { store, caller, build };
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
