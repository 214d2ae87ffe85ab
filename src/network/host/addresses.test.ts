import { expect, test } from "vitest";
import { addressesOfInterfaces, hostAddresses } from "./addresses.ts";

test("the kernel's lists have every address that the interfaces have, written alike", async () => {
  expect(hostAddresses()).toContain("127.0.0.1/32");
  // Once more where one comes or goes in between.
  const missing = (): string[] => {
    const found = new Set(hostAddresses());
    return addressesOfInterfaces().filter((address) => !found.has(address));
  };
  await expect.poll(missing).toEqual([]);
});
