import { expect, test } from "vitest";
import type { Vm } from "../../../client/vm.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import { VolumePlaces } from "./places.ts";

/** Places whose VMs are all being made until `end` settles. */
function placesBeingMade(): {
  places: VolumePlaces;
  made: string[];
  end: PromiseWithResolvers<Vm>;
} {
  const made: string[] = [];
  const end = Promise.withResolvers<Vm>();
  const vmsan = {
    list: async () => await Promise.resolve([]),
    create: async ({ labels }: { labels: Record<string, string> }) => {
      made.push(...Object.values(labels));
      return await end.promise;
    },
  } as unknown as Vmsan;
  const log = { info: () => undefined, error: () => undefined };
  return { places: new VolumePlaces(vmsan, "auto", log), made, end };
}

const nothing = async (): Promise<void> => await Promise.resolve();

test("who asks for many volumes at once has no more VMs made than there may be, nor than one project may have", async () => {
  const { places, made, end } = placesBeingMade();
  const ask = async (project: string, count: number): Promise<string[]> =>
    await Promise.all(
      Array.from({ length: count }, async (_, index) => {
        const name = `${project}-${index}`;
        return await places.use({ name, project }, nothing).then(String, String);
      }),
    );
  const asked = ["greedy", "b", "c", "d", "late"].map(async (project) => await ask(project, 8));
  await expect.poll(() => made.length).toBe(16);
  const ofProject = (project: string): number =>
    made.filter((name) => name.startsWith(`${project}-`)).length;
  expect(["greedy", "b", "c", "d"].map(ofProject)).toEqual([4, 4, 4, 4]);
  end.reject(new Error("not made"));
  const said = (await Promise.all(asked)).flat();
  expect(said.filter((why) => why.includes("4 volumes of this project is in use"))).toHaveLength(
    16,
  );
  expect(said.filter((why) => why.includes("16 volumes is in use"))).toHaveLength(8);
  // Those that were not made leave their places to others.
  await expect(places.use({ name: "another", project: "greedy" }, nothing)).rejects.toThrow(
    "not made",
  );
});
