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

test("a build that fails while it is asked about is never told as one of another gateway", async () => {
  const directory = await mkdtemp(join(tmpdir(), "vmsan-builds-"));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const store = new E2bStore(directory);
  const context = { store } as unknown as ControlContext;
  const caller = { key: { project: "ours", admin: false } } as unknown as Caller;
  const builds = new Builds(context);
  for (let i = 0; i < 20; i += 1) {
    const made = (await makeTemplate(context, caller, { name: "mine" })) as {
      templateID: string;
      buildID: string;
    };
    const { templates } = await store.load();
    const template = templates.find(({ id }) => id === made.templateID);
    if (template === undefined) throw new Error("the template was not kept");
    const wish = { steps: [], fromImageRegistry: {} };
    await builds.begin(caller, template, made.buildID, wish);
    let status: { status: string; reason?: { message: string } };
    do {
      status = (await builds.status(template.id, made.buildID, 0)) as typeof status;
    } while (status.status === "building");
    expect(status).toMatchObject({
      status: "error",
      reason: { message: expect.stringContaining("registries") as string },
    });
  }
});

test("a template goes on from what its origin has set, and pip may install in what stands for E2B's", async () => {
  const directory = await mkdtemp(join(tmpdir(), "vmsan-builds-"));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const store = new E2bStore(directory);
  const context = { store } as unknown as ControlContext;
  const caller = { key: { project: "ours", admin: false } } as unknown as Caller;
  const builds = new Builds(context);
  const build = async (name: string, wish: object): Promise<void> => {
    const made = (await makeTemplate(context, caller, { name })) as {
      templateID: string;
      buildID: string;
    };
    const { templates } = await store.load();
    const template = templates.find(({ id }) => id === made.templateID);
    if (template === undefined) throw new Error("the template was not kept");
    await builds.begin(caller, template, made.buildID, buildSchema.parse(wish));
    for (;;) {
      const { status } = (await builds.status(template.id, made.buildID, 0)) as { status: string };
      if (status === "ready") return;
      if (status !== "building") throw new Error(status);
    }
  };
  await build("first", {
    fromImage: "e2bdev/base",
    steps: [
      { type: "ENV", args: ["A", "1"] },
      { type: "USER", args: ["root"] },
    ],
  });
  await build("second", { fromTemplate: "first", steps: [{ type: "ENV", args: ["B", "2"] }] });
  expect(await resolveTemplate(store, caller, "second")).toMatchObject({
    runtime: "e2b",
    user: "root",
    env: ["PIP_BREAK_SYSTEM_PACKAGES=1", "A=1", "B=2"],
  });
  expect((await resolveTemplate(store, caller, "base")).env).toEqual([
    "PIP_BREAK_SYSTEM_PACKAGES=1",
  ]);
});
