/** When guests that stand still because the host's disk is full are let go on. */
import { expect, test } from "vitest";
import { FullDiskWatch } from "./full-disk.ts";
import type { Sandboxes } from "./sandboxes.ts";

test("guests that are held go on when there is room, and nobody is asked otherwise", async () => {
  let free = 10 * 2 ** 30;
  let held = true;
  let fails = false;
  const asked: number[] = [];
  const running = {
    retryWrites: async () => {
      asked.push(free);
      if (fails) throw new Error("QEMU does not answer");
      return await Promise.resolve(held && free > 0);
    },
  };
  const given: number[] = [];
  const lines: string[] = [];
  const write = (line: string): void => void lines.push(line);
  const sandboxes = {
    entries: new Map(
      ["running", "paused", "stopped"].map((status) => [
        status,
        { record: { id: `vm-${status}`, status }, guest: { running } },
      ]),
    ),
    log: { info: write, error: write },
    warm: { makeRoom: async () => await Promise.resolve(void given.push(free)) },
  } as unknown as Sandboxes;
  const watch = new FullDiskWatch(sandboxes, "/vms", async () => await Promise.resolve(free));
  try {
    // The daemon before this one may have left some that are held.
    await watch.look();
    expect(asked.splice(0)).toEqual([free]);
    expect(lines.splice(0)).toEqual([expect.stringContaining("vm-running")]);
    held = false;
    await watch.look();
    expect(asked.splice(0)).toEqual([]);
    expect(given).toEqual([]);

    // Full: told once, and nobody can go on.
    free = 0;
    held = true;
    await watch.look();
    await watch.look();
    expect(asked.splice(0)).toEqual([]);
    expect(lines.splice(0)).toEqual([expect.stringContaining("/vms")]);
    // What starts can do without is removed, also what has been made since.
    expect(given).toEqual([0, 0]);

    // A little room is tried; then enough, for the last time, and again for who did not answer.
    free = 2 ** 20;
    await watch.look();
    expect(asked.splice(0)).toEqual([free]);
    free = 2 ** 30;
    fails = true;
    await watch.look();
    fails = false;
    await watch.look();
    await watch.look();
    expect(asked.splice(0)).toEqual([free, free]);
  } finally {
    watch.close();
  }
});
