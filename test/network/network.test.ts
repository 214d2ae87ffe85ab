/** Network policies against attempts from inside the guest; see test/network/. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { buildBench, inWorld, whyNot, type Bench } from "./launch.ts";
import { order } from "./table.ts";

const reason = whyNot();
if (reason !== undefined) process.stderr.write(`skipped: test/network/network.test.ts ${reason}\n`);

/** Rules taken away, and the policies in which something must then get through. */
const mutations = [
  { from: "ether saddr != ", to: "ether saddr 02:00:00:00:00:01 ether saddr != ", columns: "A" },
  { from: "    ip saddr ", to: "    meta protocol ip accept\n    ip saddr ", columns: "A" },
  {
    from: "    ip6 saddr { ::",
    to: "    meta protocol ip6 accept\n    ip6 saddr { ::",
    columns: "A",
  },
  { from: "@denied4 goto deny-denied-cidr", to: "@denied4 continue", columns: "C" },
  { from: "@protected4 goto deny-protected", to: "@protected4 continue", columns: "A" },
  { from: "@protected6 goto deny-protected", to: "@protected6 continue", columns: "A" },
  { from: "{ 53, 853, 5353, 8853 } goto deny-resolver", to: "53 continue", columns: "C" },
  { from: "@resolvers4 goto deny-resolver", to: "@resolvers4 continue", columns: "B" },
  { from: "goto deny-default-deny", to: "accept", columns: "E" },
  { from: "goto deny-deny-all", to: "accept", columns: "D" },
  { from: "th dport { 80, 443 } goto deny-protocol", to: "th dport 80 continue", columns: "F" },
  { from: "goto deny-protocol", to: "accept", columns: "A" },
  { from: "th dport != { 443, 9000, 5000 } goto deny-port", to: "continue", columns: "P" },
  {
    from: 'iifname "tap0" meta nfproto ipv4 tcp dport { 80, 443 } jump proxy4',
    to: "",
    columns: "N",
    holds: true,
  },
  { from: "@host4 goto deny-host", to: "@host4 continue", columns: "A", holds: true },
  // Two layers keep guests from the host: with the host's own table gone the VM's must do …
  { from: "no rule at all", to: "", columns: "AF", withoutHostTable: true, holds: true },
  // … and with both gone the table must notice.
  { from: "@host4 goto deny-host", to: "@host4 continue", columns: "A" },
];

let bench: Bench;
beforeAll(() => {
  if (reason === undefined) bench = buildBench();
}, 240_000);
afterAll(() => bench?.remove());

describe.skipIf(reason !== undefined)("network policies", () => {
  let lines: Record<string, unknown>[];
  beforeAll(async () => {
    lines = await inWorld(bench, "policies.ts", { mutations });
  }, 240_000);

  test.each(order.split(""))("policy %s: every attempt ends as the table says", (letter) => {
    const own = lines.filter((line) => line["policy"] === letter);
    expect(own.length).toBeGreaterThan(120);
    expect(own.filter((line) => line["open"] !== line["expected"])).toEqual([]);
  });

  test("the same where every server answers 101", async () => {
    const switched = await inWorld(bench, "policies.ts", { switching: true, columns: "ANFEB" });
    const web = switched.filter((line) => String(line["name"]).startsWith("http: "));
    expect(web.length).toBeGreaterThan(5 * 25);
    expect(web.filter((line) => line["open"] !== line["expected"])).toEqual([]);
  }, 120_000);

  test("the same without root, in a user namespace with pasta as the way out", async () => {
    const rootless = await inWorld(bench, "policies.ts", { rootless: true, columns: "ADF" });
    const tried = rootless.filter((line) => line["policy"] !== undefined);
    expect(tried.length).toBe(3 * lines.filter((line) => line["policy"] === "A").length);
    expect(tried.filter((line) => line["open"] !== line["expected"])).toEqual([]);
    expect(rootless.filter((line) => line["message"] !== undefined)).toEqual([]);
  }, 120_000);

  test("the same for a VM that is in private networks", async () => {
    const within = await inWorld(bench, "policies.ts", { networks: true, columns: "ADFB" });
    expect(within.find((line) => line["member"] !== undefined)?.["member"]).toMatch(/peer=198\.18/);
    const tried = within.filter((line) => line["policy"] !== undefined);
    expect(tried.length).toBe(4 * lines.filter((line) => line["policy"] === "A").length);
    expect(tried.filter((line) => line["open"] !== line["expected"])).toEqual([]);
  }, 120_000);

  test.each(mutations.map((mutation, index) => [mutation.from, index] as const))(
    "the table notices: %s",
    (_, index) => {
      const line = lines.filter((each) => each["mutation"] !== undefined)[index];
      const holds = mutations[index]?.holds === true;
      const applied = mutations[index]?.withoutHostTable !== true;
      expect(line).toMatchObject({
        applied,
        leaks: holds ? [] : expect.arrayContaining([expect.any(String)]),
      });
    },
  );
});

/** What the rules of a VM's own namespace say of the addresses of the one that the frames come from. */
const spoils = {
  tap: {
    from: "ip saddr { 198.19.0.6, 198.18.0.3 } accept",
    to: "ip saddr 0.0.0.0/0 accept",
  },
  forward: {
    from: "ip saddr { 198.19.0.6, 198.18.0.3 } ip daddr 198.18.0.0/24",
    to: "ip daddr 198.18.0.0/24",
  },
  state: { from: "ct state { invalid, untracked } drop", to: "" },
};

describe.skipIf(reason !== undefined)("private networks", () => {
  test.each([false, true])(
    "members reach each other and nobody else does, in and out at any time (rootless: %s)",
    async (rootless) => {
      const lines = await inWorld(bench, "private.ts", { rootless });
      expect(lines.filter((line) => line["good"] !== true)).toEqual([]);
      expect(lines.at(-1)).toMatchObject({ name: "done" });
      expect(lines.length).toBeGreaterThan(130);
    },
    180_000,
  );

  test.each([
    { what: "two layers", spoil: [spoils.tap, spoils.forward], anySource: false, leaks: [] },
    {
      what: "all three",
      spoil: [spoils.tap, spoils.forward],
      anySource: true,
      leaks: ["frame: as a peer", "frame: as nobody"],
    },
    {
      what: "connections",
      spoil: [spoils.state],
      anySource: false,
      leaks: ["frame: error about another's connection"],
    },
  ])(
    "the frames notice: $what",
    async ({ spoil, anySource, leaks }) => {
      const lines = await inWorld(bench, "private.ts", { spoil, anySource });
      expect(lines.length).toBeGreaterThan(8);
      const seen = lines.filter((line) => line["good"] !== true).map((line) => line["name"]);
      if (leaks.length > 0) expect(seen).toEqual(expect.arrayContaining(leaks));
      else expect(seen).not.toContain("frame: as a peer");
    },
    120_000,
  );
});

describe.skipIf(reason !== undefined)("networks in use", () => {
  test("changes under traffic, connections across them, published ports, restart", async () => {
    const lines = await inWorld(bench, "traffic.ts", { changes: 200 });
    expect(lines.filter((line) => line["ok"] !== true)).toEqual([]);
    expect(lines.at(-1)).toEqual({ stage: "done", ok: true, got: "" });
  }, 120_000);

  test("300 networks, failures and kills leave nothing", async () => {
    const lines = await inWorld(bench, "lifecycle.ts", { rounds: 300, kills: 12 });
    const nothing = {
      links: [],
      routes: [],
      neighbours: [],
      namespaces: [],
      leases: [],
      keepers: [],
    };
    const stages = lines.filter((line) => line["stage"] !== undefined);
    expect(lines.filter((line) => line["problem"] !== undefined)).toEqual([]);
    expect(stages.length).toBe(1 + 3 + 12);
    for (const stage of stages) expect(stage).toMatchObject(nothing);
    const [before, rounds, , failed] = stages;
    // While a manager lives, so does its table; once none does, the host is as it was.
    for (const stage of stages.slice(1, 4)) expect(stage["rules"]).toBe("table inet vmsan");
    expect(rounds?.["settings"]).not.toEqual(before?.["settings"]);
    const { settings } = before ?? {};
    for (const stage of stages.slice(4))
      expect(stage).toMatchObject({ rules: "", state: [], settings });
    expect(rounds).toMatchObject({ addresses: 300, descriptors: 0 });
    expect(failed).toMatchObject({
      code: "ERR_VALIDATION_PORT_CONFLICT",
      ended: "no longer wanted",
    });
    for (const stage of stages) expect(stage["failed"] ?? []).toEqual([]);
    expect(lines.find((line) => line["event"] === "rivals")).toMatchObject({
      links: 2,
      up: [true, true],
      failed: [],
    });
    // Some of the kills must have hit networks in the making, else nothing was tested.
    expect(stages.slice(4).some((stage) => Number(stage["removed"]) > 0)).toBe(true);
  }, 180_000);

  test("without root: killed keepers are replaced, killed daemons leave nothing", async () => {
    const lines = await inWorld(bench, "lifecycle.ts", { rootless: true, kills: 8 });
    const loss = lines.find((line) => line["event"] === "loss") as Record<string, number[]>;
    const { before: first, between, after } = loss;
    expect(between?.[0]).not.toBe(first?.[0]);
    expect(between?.[1]).toBe(first?.[1]);
    expect(after?.[1]).not.toBe(first?.[1]);
    // One keeper and one pasta: the old one's has gone with it.
    expect(loss["running"]).toBe(2);
    expect(lines.filter((line) => line["problem"] !== undefined)).toEqual([]);
    const [before, ...kills] = lines.filter((line) => line["stage"] !== undefined);
    expect(kills.length).toBe(8);
    const clean = { leases: [], keepers: [], failed: [], links: before?.["links"], rules: "" };
    for (const kill of kills) expect(kill).toMatchObject(clean);
    expect(kills.some((kill) => Number(kill["removed"]) > 0)).toBe(true);
  }, 120_000);
});
