import { expect, test } from "vitest";
import { checkSubnet, freeSubnet, isMemberAddress, memberAddress } from "./subnets.ts";

const refusal = (body: () => unknown): string => {
  try {
    body();
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
  return "taken";
};

test("ranges that a user names: private, whole, beside the others", () => {
  const others = ["10.20.0.0/24"];
  for (const good of [
    "10.20.1.0/24",
    "10.0.0.0/29",
    "172.16.0.0/12",
    "198.18.9.0/24",
    "100.64.0.0/16",
  ]) {
    expect(checkSubnet(good, others)).toBe(good);
  }
  for (const bad of [
    "10.20.0.0/24",
    "10.20.0.128/25",
    "10.0.0.0/8",
    "10.20.1.1/24",
    "8.8.8.0/24",
    "198.19.0.0/24",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "10.20.1.0/30",
    "10.0.0.0/7",
    "fd00::/64",
    "10.20.1.0",
    "app",
    "",
  ]) {
    expect(refusal(() => checkSubnet(bad, others))).toBe("ERR_PRIVATE_NETWORK_SUBNET");
  }
});

test("free ranges: the first one, until there is none", () => {
  expect(freeSubnet([])).toBe("198.18.0.0/24");
  expect(freeSubnet(["198.18.0.0/24", "198.18.2.0/24", "10.0.0.0/8"])).toBe("198.18.1.0/24");
  expect(freeSubnet(["198.18.0.0/17"])).toBe("198.18.128.0/24");
  expect(refusal(() => freeSubnet(["198.18.0.0/16"]))).toBe("ERR_PRIVATE_NETWORK_SUBNET");
});

test("addresses of members: never given twice, nor at once again", () => {
  const taken = new Set(["198.18.0.2", "198.18.0.4"]);
  const give = (wanted?: string, after?: string): string =>
    memberAddress("app", "198.18.0.0/24", wanted, taken, after);
  expect(give()).toBe("198.18.0.3");
  expect(give(undefined, "198.18.0.3")).toBe("198.18.0.5");
  expect(give(undefined, "198.18.0.254")).toBe("198.18.0.3");
  expect(give("198.18.0.9")).toBe("198.18.0.9");
  for (const bad of [
    "198.18.0.2",
    "198.18.0.0",
    "198.18.0.1",
    "198.18.0.255",
    "198.18.1.2",
    "x",
    "::2",
  ]) {
    expect(refusal(() => give(bad))).toBe("ERR_PRIVATE_NETWORK_ADDRESS");
    if (!taken.has(bad)) expect(isMemberAddress("198.18.0.0/24", bad)).toBe(false);
  }
  const all = new Set<string>();
  for (let n = 0; n < 5; n += 1) all.add(memberAddress("app", "10.0.0.0/29", undefined, all));
  expect([...all]).toEqual(["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
  const code = refusal(() => memberAddress("app", "10.0.0.0/29", undefined, all));
  expect(code).toBe("ERR_PRIVATE_NETWORK_ADDRESS");
});
