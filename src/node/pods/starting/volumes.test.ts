import { expect, test } from "vitest";
import type { Vmsan } from "../../../client/vmsan.ts";
import { PodNotReadyError } from "../spec/failure.ts";
import { PodVolumes } from "./volumes.ts";

const GIB = 2 ** 30;

test("a namespace has volumes within its quota, whoever asks at once; those that are there may be used", async () => {
  const made = new Map([
    ["team.old", 15 * GIB],
    ["team2.data", 900 * GIB],
    ["host", 900 * GIB],
  ]);
  const volumes = {
    list: async () =>
      await Promise.resolve([...made].map(([name, sizeBytes]) => ({ name, sizeBytes }))),
    create: async (name: string, { size }: { size: number }) => {
      await Promise.resolve();
      made.set(name, size * GIB);
    },
  };
  const own = new PodVolumes({ volumes } as unknown as Vmsan, 35 * GIB);
  await own.ensure("team", []);
  await own.ensure("team", ["team.old"]);
  const asked = ["a", "b", "c", "a"].map(
    async (name) => await own.ensure("team", [`team.${name}`]),
  );
  const [first, second, third, again] = await Promise.allSettled(asked);
  expect([first?.status, second?.status, again?.status]).toEqual(Array(3).fill("fulfilled"));
  const { reason } = third as PromiseRejectedResult;
  expect(reason).toBeInstanceOf(PodNotReadyError);
  expect((reason as PodNotReadyError).reason).toBe("VolumeQuotaExceeded");
  expect([...made.keys()].filter((name) => name.startsWith("team."))).toEqual([
    "team.old",
    "team.a",
    "team.b",
  ]);
  await expect(own.ensure("team2", ["team2.more"])).rejects.toThrow("team2.more");
  await own.ensure("team2", ["team2.data"]);
  // One pod has all that it names, or none.
  await expect(own.ensure("new", ["new.1", "new.2", "new.3", "new.4"])).rejects.toThrow("35 GiB");
  expect(made.size).toBe(5);
});
