import { expect, test } from "vitest";
import { peerNames, pointedAt, type Peer } from "./names.ts";

const link = (network: string, subnet: string, address: string) => ({
  network,
  netns: "vmsan-net-00000000",
  index: 0,
  subnet,
  address,
});

test("names of members, as they are at the moment of a question", () => {
  const peers: Peer[] = [
    { network: "App", address: "198.18.0.2", names: ["Web.1", "vm-00000001"] },
    { network: "App", address: "198.18.0.3", names: ["db-1", "vm-00000002", "db"] },
  ];
  const links = [link("App", "198.18.0.0/24", "198.18.0.2")];
  const { addressesOf, namesOf } = peerNames(
    () => peers,
    () => links,
  );
  expect(addressesOf("web.1")).toEqual(["198.18.0.2"]);
  expect(addressesOf("web.1.app")).toEqual(["198.18.0.2"]);
  expect(addressesOf("vm-00000002")).toEqual(["198.18.0.3"]);
  for (const name of ["web", "web.1.other", "app", "x.db", "example.org"]) {
    expect(addressesOf(name)).toBeUndefined();
  }
  expect(addressesOf("db")).toEqual(["198.18.0.3"]);
  peers.push({ network: "App", address: "198.18.0.4", names: ["db-2", "db"] });
  expect(addressesOf("db")).toEqual(["198.18.0.3", "198.18.0.4"]);
  expect(namesOf("198.18.0.3")).toEqual(["db-1.App"]);
  expect(namesOf("198.18.0.9")).toEqual([]);
  expect(namesOf("203.0.113.1")).toBeUndefined();
  links.length = 0;
  expect(addressesOf("db")).toBeUndefined();
  expect(namesOf("198.18.0.3")).toBeUndefined();
});

test("what a reverse name asks about", () => {
  expect(pointedAt("3.0.18.198.in-addr.arpa")).toBe("198.18.0.3");
  for (const name of [
    "0.18.198.in-addr.arpa",
    "x.3.0.18.198.in-addr.arpa",
    "3.0.18.198.in-addr.arpa.evil",
    "db",
  ]) {
    expect(pointedAt(name)).toBeUndefined();
  }
});
