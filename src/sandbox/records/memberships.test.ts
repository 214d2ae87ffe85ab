/** Private networks of many members: places, names, leaving. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { GuestNetwork } from "../../model/policy.ts";
import type { VmRecord } from "../../model/vm.ts";
import { PrivateNetworkStore } from "../../network/private/store.ts";
import { Mutex } from "../../util/flow/mutex.ts";
import type { Entry } from "./entry.ts";
import { Places, peersOf } from "./memberships.ts";

const root = await mkdtemp(join(tmpdir(), "vmsan-members-"));
afterAll(async () => await rm(root, { recursive: true, force: true }));

/** A VM of which only its place counts. */
function entry(id: string): Entry {
  const guestNetwork = {} as GuestNetwork;
  const record = { id, name: `name-of-${id}`, guestNetwork } as unknown as VmRecord;
  return { record, mutex: new Mutex(), holders: 0, watchers: new Set() };
}

test("600 VMs join and leave one network: each has an address of its own and finds all others", async () => {
  const store = new PrivateNetworkStore(root);
  await store.create({ name: "small", project: "", labels: {} });
  await store.create({ name: "large", project: "", labels: {}, subnet: "10.20.0.0/22" });
  const places = new Places(store);
  const entries = new Map<string, Entry>();
  const enter = (id: string, network: string): void => {
    const one = entries.get(id) ?? entry(id);
    const has = one.record.networks ?? [];
    const wanted = [{ network, aliases: ["all"] }];
    one.record.networks = places.give(entries.values(), id, wanted, has);
    entries.set(id, one);
  };
  for (let i = 0; i < 600; i += 1) enter(`vm-${i}`, "large");
  const peers = peersOf(entries, "vm-0");
  expect(new Set(peers.map(({ address }) => address)).size).toBe(600);
  expect(peers[599]?.names).toEqual(["name-of-vm-599", "vm-599", "all"]);
  for (let i = 0; i < 600; i += 2) entries.delete(`vm-${i}`);
  expect(peersOf(entries, "vm-1").length).toBe(300);
  for (let i = 600; i < 1300; i += 1) enter(`vm-${i}`, "large");
  expect(new Set(peersOf(entries, "vm-1").map(({ address }) => address)).size).toBe(1000);
  // As many as there are addresses, then none more, with what to do.
  for (let i = 0; i < 253; i += 1) enter(`s-${i}`, "small");
  expect(() => {
    for (let i = 0; i < 3; i += 1) enter(`more-${i}`, "small");
  }).toThrow(expect.objectContaining({ code: "ERR_PRIVATE_NETWORK_ADDRESS" }));
});
