import { expect, test } from "vitest";
import type { Vm } from "../../../client/vm.ts";
import type { VolumePlaces } from "../volumes/places.ts";
import { resumeSandbox } from "./lifecycle.ts";

test.each(["suspended", "stopped"])(
  "a sandbox that is %s has its next end before it runs",
  async (status) => {
    const done: string[] = [];
    const act = (name: string) => async (): Promise<void> => {
      done.push(name);
      await Promise.resolve();
    };
    const vm = {
      view: { status, labels: {}, mounts: [] },
      extendTimeout: act("extend"),
      resume: act("run"),
      start: act("run"),
      refresh: act("refresh"),
    };
    const places = {
      without: async (_names: string[], body: () => Promise<void>) => await body(),
    };
    await resumeSandbox(vm as unknown as Vm, 1_000, places as unknown as VolumePlaces);
    expect(done.indexOf("extend")).toBeLessThan(done.indexOf("run"));
    expect(done).toContain("run");
  },
);
