import { expect, test } from "vitest";
import type { FilesContext } from "./entries.ts";
import { Watchers } from "./watchers.ts";

/** A sandbox of a project, whose guest says nothing. */
function guestOf(project: string): FilesContext {
  const transport = { open: async () => await new Promise(() => undefined) };
  return {
    vm: { id: `vm-${project}`, view: { project }, transport },
    user: { name: "user", uid: 1000, gid: 1000, home: "/", shell: "/bin/sh" },
  } as unknown as FilesContext;
}

test("one project's watchers take no other's place", async () => {
  const watchers = new Watchers();
  const options = { recursive: false, includeEntry: false };
  const watch = async (project: string): Promise<string> =>
    await Promise.race([
      watchers.create(guestOf(project), "/", options),
      new Promise<string>((resolve) => setImmediate(() => resolve("begun"))),
    ]);
  for (let i = 0; i < 1_000; i += 1) expect(await watch("ours")).toBe("begun");
  await expect(watch("ours")).rejects.toMatchObject({ code: "resource_exhausted" });
  expect(await watch("other")).toBe("begun");
});
