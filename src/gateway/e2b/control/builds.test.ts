import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import type { Caller } from "../../access/gate.ts";
import { Builds } from "./builds.ts";
import type { ControlContext } from "./context.ts";
import { E2bStore } from "./store.ts";
import { makeTemplate } from "./template-calls.ts";

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
