import { expect, test } from "vitest";
import type { Vm } from "../../../client/vm.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import { VolumePlaces } from "./places.ts";

test("who asks for many volumes at once has no more VMs made than there may be", async () => {
  let made = 0;
  const end = Promise.withResolvers<Vm>();
  const vmsan = {
    list: async () => await Promise.resolve([]),
    create: async () => {
      made += 1;
      return await end.promise;
    },
  } as unknown as Vmsan;
  const log = { info: () => undefined, error: () => undefined };
  const places = new VolumePlaces(vmsan, "auto", log);
  const asked = Array.from(
    { length: 40 },
    async (_, index) =>
      await places.use(`volume-${index}`, async () => await Promise.resolve()).catch(String),
  );
  await Promise.race(asked);
  expect(made).toBe(16);
  end.reject(new Error("not made"));
  const said = await Promise.all(asked);
  expect(said.filter((why) => String(why).includes("16 volumes is in use"))).toHaveLength(24);
  // Those that were not made leave their places to others.
  await expect(places.use("another", async () => await Promise.resolve())).rejects.toThrow(
    "not made",
  );
});
