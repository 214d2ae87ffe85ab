/** Who is in which private network, on the fake driver: records, what is told to the host, failures. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, expect, test } from "vitest";
import type { CreateRequest } from "../model/api.ts";
import type { Membership, MembershipRequest } from "../model/private-network.ts";
import type { Peer } from "../network/private/names.ts";
import { createRequest } from "../client/options.ts";
import { PrivateNetworks } from "./private-networks.ts";
import { VmRecords } from "./records/records.ts";
import { Sandboxes } from "./sandboxes.ts";
import { networksOf } from "./snapshots/record.ts";
import type { Networks, Work } from "./stages.ts";
import { fakeStages, quietLog } from "./testing.ts";

const root = await mkdtemp(join(tmpdir(), "vmsan-members-"));
const made: Sandboxes[] = [];
let dir = "";
let count = 0;
beforeEach(() => {
  dir = join(root, String((count += 1)));
});
afterAll(async () => {
  for (const sandboxes of made) {
    for (const { id } of sandboxes.list()) await sandboxes.remove(id, true);
  }
  await rm(root, { recursive: true, force: true });
});

/** The host's networks as these tests see them. */
class Host {
  /** What each VM was last placed in. */
  readonly placed = new Map<string, readonly Membership[]>();
  peers: (vmId: string) => readonly Peer[] = () => [];
  /** Makes the next placing fail. */
  fails = false;

  networks(): Networks {
    const nothing = { removed: [], failed: [] };
    return {
      attach: async (vmId, _policy, _ports, _signal, networks) => {
        this.placed.set(vmId, networks);
        const mac = "02:00:00:00:00:01";
        const guest = { mac, ipv4: "198.19.0.2/30", gateway4: "198.19.0.1", dns: [], mtu: 1500 };
        return await Promise.resolve({ guest });
      },
      resume: async (vmId, _policy, _ports, networks) => {
        this.placed.set(vmId, networks);
        return await Promise.resolve(undefined);
      },
      place: async (vmId, networks) => {
        if (this.fails) {
          this.fails = false;
          throw new Error("the kernel says no");
        }
        this.placed.set(vmId, networks);
        await Promise.resolve();
      },
      onArrival: () => undefined,
      onSecrets: () => undefined,
      onPeers: (call) => {
        this.peers = call;
      },
      cut: () => undefined,
      isUp: () => true,
      update: async () => await Promise.resolve(),
      detach: async (vmId) => {
        this.placed.delete(vmId);
        return await Promise.resolve(nothing);
      },
      forget: async () => await Promise.resolve(),
      sweep: async () => await Promise.resolve(nothing),
    };
  }
}

interface Scene {
  host: Host;
  sandboxes: Sandboxes;
  networks: PrivateNetworks;
}

/** A composer on this test's directory, as a starting daemon has it. */
async function start(): Promise<Scene> {
  const host = new Host();
  const stages = fakeStages(dir, { networks: host.networks() });
  const sandboxes = new Sandboxes(new VmRecords(join(dir, "vms")), stages, quietLog);
  await sandboxes.recover();
  made.push(sandboxes);
  return { host, sandboxes, networks: new PrivateNetworks(sandboxes) };
}

const work = (): Work => ({ signal: new AbortController().signal, progress: () => undefined });
const wish = (name: string) => ({ name, project: "", labels: {} });
const place = (network: string, address?: string): MembershipRequest => ({
  network,
  aliases: [],
  ...(address === undefined ? {} : { address }),
});
const code = (error: string) => expect.objectContaining({ code: error }) as Error;

async function make(
  { sandboxes }: Scene,
  name: string,
  networks: MembershipRequest[],
  change: Partial<CreateRequest> = {},
): Promise<string> {
  const request = {
    ...createRequest({ driver: "fake", name, networkPolicy: "deny-all" }),
    networks,
  };
  const view = await sandboxes.create(
    { ...request, warm: false, ...change },
    work(),
    () => undefined,
  );
  return view.id;
}

const addresses = (scene: Scene, ref: string): string[] =>
  scene.sandboxes.get(ref).networks.map(({ network, address }) => `${network} ${address}`);

test("a VM has its places from its making to its end, and others see its names", async () => {
  const scene = await start();
  const { host, sandboxes, networks } = scene;
  await networks.create(wish("app"));
  const a = await make(scene, "a", [place("app")]);
  const b = await make(scene, "b", [{ network: "app", aliases: ["db"] }]);
  await make(scene, "c", []);
  expect(addresses(scene, "a")).toEqual(["app 198.18.0.2"]);
  expect(host.placed.get(b)?.map(({ address }) => address)).toEqual(["198.18.0.3"]);
  expect(host.peers(a)).toEqual([
    { network: "app", address: "198.18.0.2", names: ["a", a] },
    { network: "app", address: "198.18.0.3", names: ["b", b, "db"] },
  ]);
  expect(host.peers(sandboxes.get("c").id)).toEqual([]);
  await expect(networks.remove("app")).rejects.toThrow(code("ERR_PRIVATE_NETWORK_IN_USE"));
  // Stopped it keeps its place, but is not to be found.
  await sandboxes.stop("b", 0);
  expect(host.peers(a).map(({ address }) => address)).toEqual(["198.18.0.2"]);
  expect(networks.get("app").members.map(({ connected }) => connected)).toEqual([true, false]);
  const d = await make(scene, "d", [place("app")]);
  expect(addresses(scene, d)).toEqual(["app 198.18.0.4"]);
  await expect(networks.remove("app")).rejects.toThrow(code("ERR_PRIVATE_NETWORK_IN_USE"));
  await sandboxes.start("b", work());
  expect(addresses(scene, "b")).toEqual(["app 198.18.0.3"]);
  for (const ref of ["a", "b", "d"]) await sandboxes.remove(ref, true);
  expect(await networks.prune()).toEqual({ networks: ["app"] });
  expect(networks.list()).toEqual([]);
  // Of networks that are no more nothing is remembered, however many there were.
  expect(sandboxes.places["last"].size).toBe(0);
});

test("in and out while it runs; what fails changes nothing", async () => {
  const scene = await start();
  const { host, sandboxes, networks } = scene;
  for (const name of ["one", "two"]) await networks.create(wish(name));
  const a = await make(scene, "a", [place("one")]);
  await networks.connect("a", { network: "two", aliases: ["x"], address: "198.18.1.9" });
  const told = [...sandboxes.events.kept(0)].filter(({ type }) => type.startsWith("network."));
  expect(told.map(({ type, data }) => `${type} ${Object.values(data).join(" ")}`)).toEqual([
    "network.created one",
    "network.created two",
    "network.connected two 198.18.1.9",
  ]);
  expect(addresses(scene, "a")).toEqual(["one 198.18.0.2", "two 198.18.1.9"]);
  expect(host.placed.get(a)?.length).toBe(2);
  await expect(networks.connect("a", place("two"))).rejects.toThrow(
    code("ERR_PRIVATE_NETWORK_MEMBER"),
  );
  host.fails = true;
  await expect(networks.disconnect("a", "one")).rejects.toThrow("the kernel says no");
  expect(addresses(scene, "a")).toEqual(["one 198.18.0.2", "two 198.18.1.9"]);
  expect(host.placed.get(a)?.length).toBe(2);
  await networks.disconnect("a", "one");
  expect(host.placed.get(a)?.map(({ network }) => network)).toEqual(["two"]);
  await expect(networks.disconnect("a", "one")).rejects.toThrow(
    code("ERR_PRIVATE_NETWORK_NOT_MEMBER"),
  );
  host.fails = true;
  await expect(networks.connect("a", place("one"))).rejects.toThrow("the kernel says no");
  expect(addresses(scene, "a")).toEqual(["two 198.18.1.9"]);
  // A stopped one is put in and out in its record.
  await sandboxes.stop("a", 0);
  await networks.connect("a", place("one"));
  await networks.disconnect("a", "two");
  expect(addresses(scene, "a")[0]).toMatch(/^one 198\.18\.0\.\d+$/);
  expect(host.placed.has(a)).toBe(false);
});

test("what cannot be is refused before anything is made", async () => {
  const scene = await start();
  const { sandboxes, networks } = scene;
  await networks.create(wish("app"));
  const refused = async (
    error: string,
    wanted: MembershipRequest[],
    change: Partial<CreateRequest> = {},
  ): Promise<void> => {
    await expect(make(scene, "x", wanted, change)).rejects.toThrow(code(error));
    expect(sandboxes.list()).toEqual([]);
  };
  await refused("ERR_PRIVATE_NETWORK_NOT_FOUND", [place("other")]);
  await refused("ERR_PRIVATE_NETWORK_MEMBER", [place("app"), place("app")]);
  await refused("ERR_PRIVATE_NETWORK_ADDRESS", [place("app", "198.18.1.2")]);
  const { policy } = createRequest({ networkPolicy: "none" });
  await refused("ERR_VALIDATION_POLICY_CONFLICT", [place("app")], { policy });
  await make(scene, "a", [place("app", "198.18.0.7")]);
  await expect(make(scene, "b", [place("app", "198.18.0.7")])).rejects.toThrow(
    code("ERR_PRIVATE_NETWORK_ADDRESS"),
  );
  await sandboxes.stop("a", 0);
  await expect(sandboxes.updatePolicy("a", policy)).rejects.toThrow(
    code("ERR_VALIDATION_POLICY_CONFLICT"),
  );
});

test("many at once get addresses of their own", async () => {
  const scene = await start();
  await scene.networks.create({ ...wish("app"), subnet: "10.0.0.0/29" });
  const names = ["a", "b", "c", "d", "e", "f", "g"];
  const ends = await Promise.allSettled(names.map((name) => make(scene, name, [place("app")])));
  expect(ends.filter(({ status }) => status === "fulfilled").length).toBe(5);
  const given = scene.networks.get("app").members.map(({ address }) => address);
  expect(new Set(given).size).toBe(5);
});

test("the next daemon finds the networks, and finishes what this one was killed in", async () => {
  const first = await start();
  await first.networks.create(wish("app"));
  const a = await make(first, "a", [place("app")]);
  // Killed between the record and the end of a change.
  const entry = first.sandboxes.find("a");
  entry.record.placing = true;
  entry.record.networks = [];
  await first.sandboxes.records.save(entry.record);
  await first.sandboxes.letGo();
  const next = await start();
  expect(next.host.placed.get(a)).toEqual([]);
  // The guest is told behind the start's back, with the VM's turn.
  await next.networks.connect("a", place("app"));
  expect(next.sandboxes.find("a").record.placing).toBeUndefined();
  expect(next.networks.get("app").members.length).toBe(1);
});

test("a clone is in its source's networks, at addresses of its own and without its aliases", () => {
  const { policy } = createRequest({ networkPolicy: "none" });
  const clone = { count: 1, labels: {}, ports: [], ephemeral: false, cold: false };
  const { isolation } = createRequest({});
  const from = { networks: ["app", "two"] };
  expect(networksOf(from, { ...clone, isolation })).toEqual([place("app"), place("two")]);
  expect(networksOf(from, { ...clone, isolation, networks: [] })).toEqual([]);
  expect(networksOf(from, { ...clone, isolation, policy })).toEqual([]);
  expect(networksOf({}, { ...clone, isolation })).toEqual([]);
});
