import { expect, test } from "vitest";
import { planFor } from "./address.ts";
import {
  cidr,
  contains,
  formatAddress,
  parseAddress,
  parseCidr,
  formatCidr,
} from "../policy/cidr.ts";
import { addressRefused, matchesDomain } from "../policy/judge.ts";
import { minSeconds, NameBook } from "../names/names.ts";
import { parsePolicy } from "../policy/parse.ts";
import type { RuleInput } from "./rule-input.ts";
import { addNames, hostRuleset, maxNameAddresses, ruleset } from "./rules.ts";

const base: Omit<RuleInput, "policy"> = {
  plan: planFor("vm-0badcafe", 7, "fd00:1111:2222"),
  generation: 3,
  ipv6: true,
  hostAddresses: ["198.51.100.2/32", "2001:db8:1::2/128"],
  names: [],
  heldNames: [],
  links: [],
};

test.each([
  ["allow-all", parsePolicy({})],
  ["deny-all", parsePolicy({ mode: "deny-all" })],
  ["custom without lists", parsePolicy({ mode: "custom" })],
  [
    "custom with everything",
    parsePolicy({
      allowedDomains: "a.example,*.b.example",
      allowedCidrs: "10.1.0.0/16,203.0.113.0/24,2001:db8:2::/48,fd12::/64,8.8.8.8/32",
      deniedCidrs: "203.0.113.7/32",
      allowHostPorts: "8000,9000",
      allowIcmp: true,
      allowUdp: true,
    }),
  ],
  [
    "custom with ports",
    parsePolicy({
      allowedDomains: "a.example",
      allowedCidrs: "203.0.113.0/24",
      allowedPorts: "443,8443",
    }),
  ],
])("golden ruleset: %s", (_, policy) => {
  const names = policy.mode === "custom" && policy.allowedDomains.length > 0;
  const text = ruleset({
    ...base,
    policy,
    names: names
      ? [
          { address: "192.0.2.1", seconds: 60 },
          { address: "2001:db8::1", seconds: 90 },
        ]
      : [],
    heldNames: names ? ["192.0.2.1", "192.0.2.2"] : [],
  });
  expect(text).toMatchSnapshot();
});

test.each(["allow-all", "custom", "deny-all"])("golden: secrets under %s", (mode) => {
  const policy = parsePolicy({ mode, ...(mode === "custom" && { allowedDomains: "a.example" }) });
  const secrets = {
    ports: [443, 8443],
    addresses: [
      { address: "192.0.2.1", seconds: 60 },
      { address: "2001:db8::1", seconds: 90 },
    ],
  };
  const text = ruleset({ ...base, policy, names: [], heldNames: [], secrets });
  const own = text.split("\n").filter((line) => /secret|proxy|jump/.test(line));
  expect(own).toMatchSnapshot();
  // Judged before anything that is allowed by its address.
  if (mode === "custom")
    expect(text.indexOf("jump secret4")).toBeLessThan(text.indexOf("jump proxy4"));
});

test("golden: no IPv6, the host's table, names", () => {
  const policy = parsePolicy({ mode: "custom", allowedDomains: "a.example" });
  expect(ruleset({ ...base, policy, ipv6: false })).toMatchSnapshot();
  expect(hostRuleset("fd00:1111:2222")).toMatchSnapshot();
  expect(
    addNames(
      [
        { address: "192.0.2.1", seconds: 60 },
        { address: "::5", seconds: 1 },
      ],
      "names",
    ),
  ).toMatchSnapshot();
});

test("private networks: beside any policy, and nothing without one", () => {
  const links = [
    { name: "pn0", subnet: "198.18.0.0/24", address: "198.18.0.2" },
    { name: "pn3", subnet: "10.20.0.0/16", address: "10.20.0.9" },
  ];
  const policy = parsePolicy({ mode: "deny-all" });
  expect(ruleset({ ...base, policy, links })).toMatchSnapshot();
  // A mark would let connections live on, and out into the world, once their network has gone.
  const text = ruleset({ ...base, policy: parsePolicy({ allowedDomains: "a.example" }), links });
  const own = text.slice(text.indexOf("chain private-out"), text.indexOf("chain input"));
  expect(own).toMatch(/private-in/);
  expect(own).not.toMatch(/mark/);
});

test("a wide allowed CIDR does not open protected ranges, a narrow one does", () => {
  const wide = ruleset({ ...base, policy: parsePolicy({ allowedCidrs: "0.0.0.0/0" }) });
  expect(wide).toMatch(/set opened4 \{[^}]*\}/);
  expect(/set opened4 .*elements/.test(wide)).toBe(false);
  expect(/set allowed4 .*elements = \{ 0\.0\.0\.0\/0 \}/.test(wide)).toBe(true);
  const narrow = ruleset({ ...base, policy: parsePolicy({ allowedCidrs: "10.1.2.0/24" }) });
  expect(/set opened4 .*elements = \{ 10\.1\.2\.0\/24 \}/.test(narrow)).toBe(true);
});

test("addresses: text forms", () => {
  for (const text of [
    "0.0.0.0",
    "255.255.255.255",
    "::",
    "::1",
    "1::",
    "2001:db8::1",
    "1:0:0:2::3",
    "fe80::1:2:3:4",
  ]) {
    const address = parseAddress(text);
    expect(address && formatAddress(address)).toBe(text);
  }
  expect(parseAddress("::ffff:1.2.3.4")?.value).toBe(0xffff01020304n);
  expect(formatCidr(cidr("2001:db8:ffff::/33"))).toBe("2001:db8:8000::/33");
  for (const bad of [
    "1.2.3",
    "1.2.3.4.5",
    "::1::",
    "12345::",
    ":1",
    "1:",
    "1.2.3.4::",
    "::1.2.3",
  ]) {
    expect(parseAddress(bad)).toBeUndefined();
  }
  expect(parseCidr("1.2.3.4/0")?.value).toBe(0n);
  expect(contains(cidr("10.0.0.0/8"), cidr("10.0.0.0/7"))).toBe(false);
  expect(contains(cidr("::/0"), cidr("10.0.0.0/8"))).toBe(false);
});

test("plans: unique addresses and names, MACs local and unicast", () => {
  const plans = Array.from({ length: 5000 }, (_, slot) => planFor("vm-1", slot * 3, "fd00:1:2"));
  expect(new Set(plans.map((plan) => plan.guest4)).size).toBe(5000);
  expect(new Set(plans.map((plan) => plan.guest6)).size).toBe(5000);
  for (const { guestMac, guest4, gateway4, hostLink } of plans.slice(0, 50)) {
    expect(guestMac).toMatch(/^02(:[0-9a-f]{2}){5}$/);
    expect(guest4).toMatch(/^198\.19\.\d+\.\d+$/);
    expect(gateway4).not.toBe(guest4);
    expect(hostLink.length).toBeLessThan(16);
  }
  expect(planFor("vm-1", 0, "fd00:1:2")).toMatchObject({
    gateway4: "198.19.0.1",
    guest4: "198.19.0.2",
  });
  expect(planFor("vm-1", 16_383, "fd00:1:2").guest4).toBe("198.19.255.254");
  expect(() => planFor("vm-1", 16_384, "fd00:1:2")).toThrow(RangeError);
});

test("domains: exact and below a wildcard", () => {
  const list = ["a.example", "*.b.example"];
  for (const name of ["a.example", "A.Example.", "x.b.example", "x.y.b.example"]) {
    expect(matchesDomain(list, name)).toBe(true);
  }
  for (const name of [
    "b.example",
    "xa.example",
    "x.a.example",
    "xb.example",
    "a.example.evil",
    ".b.example",
    "",
  ]) {
    expect(matchesDomain(list, name)).toBe(false);
  }
});

test("addresses behind names: protected ones only where the policy opens them", () => {
  const policy = parsePolicy({
    allowedDomains: "a.example",
    allowedCidrs: "10.1.0.0/16",
    deniedCidrs: "192.0.2.0/24",
  });
  const why = (address: string): string | undefined =>
    addressRefused(policy, ["203.0.113.1/32"], address);
  expect(why("93.184.216.34")).toBeUndefined();
  expect(why("10.1.2.3")).toBeUndefined();
  expect(why("10.2.2.3")).toBe("protected");
  expect(why("127.0.0.1")).toBe("protected");
  expect(why("169.254.169.254")).toBe("protected");
  expect(why("::ffff:169.254.169.254")).toBe("protected");
  expect(why("64:ff9b::a9fe:a9fe")).toBe("protected");
  expect(why("2002:7f00:1::")).toBe("protected");
  expect(why("::ffff:203.0.113.1")).toBe("host");
  expect(why("192.0.2.9")).toBe("denied-cidr");
  expect(why("198.19.0.6")).toBe("other-vm");
  expect(why("8.8.8.8")).toBe("resolver");
  expect(why("nonsense")).toBe("protected");
});

test("an hour of a name with a TTL of a second and changing addresses", () => {
  let now = 0;
  const book = new NameBook(() => now);
  const kernel = new Map<string, number>();
  let launches = 0;
  const policy = parsePolicy({ allowedDomains: "a.example" });
  for (let second = 0; second < 3600; second += 1) {
    now = second * 1000;
    const address = `192.0.2.${(second * 7) % 250}`;
    const due = book.learn("a.example", [address], 1);
    if (due.length > 0) launches += 1;
    for (const { address: one, seconds } of due) kernel.set(one, now + seconds * 1000);
    // Usable when given out, and for a while longer than the TTL says.
    expect(kernel.get(address)).toBeGreaterThanOrEqual(now + minSeconds * 500);
    if (second % 60 !== 0) continue;
    const { names, held } = book.under(policy, []);
    // After a change of policy the same addresses are usable, and earlier ones still held.
    expect(names.some((entry) => entry.address === address)).toBe(true);
    expect(held.length).toBe(Math.min(second + 1, 250));
  }
  expect(launches).toBeLessThanOrEqual(3600);
  // One address again and again costs one change of the kernel's set a minute at most.
  launches = 0;
  for (let second = 3600; second < 7200; second += 1) {
    now = second * 1000;
    if (book.learn("b.example", ["192.0.2.251"], 1).length > 0) launches += 1;
  }
  expect(launches).toBeLessThanOrEqual(61);
});

test("the book is bounded and forgets names that are no longer allowed", () => {
  const book = new NameBook(() => 0);
  for (let n = 0; n < 10_000; n += 1)
    book.learn("x.a.example", [`2001:db8::${n.toString(16)}`], 60);
  const { held } = book.under(parsePolicy({ allowedDomains: "*.a.example" }), []);
  expect(held.length).toBeLessThanOrEqual(maxNameAddresses);
  expect(book.under(parsePolicy({ allowedDomains: "a.example" }), [])).toEqual({
    names: [],
    held: [],
  });
  expect(book.under(parsePolicy({ mode: "allow-all" }), [])).toEqual({ names: [], held: [] });
});
