import { expect, test } from "vitest";
import { VmsanError } from "../../model/errors.ts";
import { parsePolicy, parsePublishedPorts, checkPortsAgainstPolicy } from "./parse.ts";

/** The code of the error that `body` throws. */
function code(body: () => unknown): string {
  try {
    body();
  } catch (error) {
    if (error instanceof VmsanError) {
      expect(error.why).toBeTruthy();
      expect(error.fix).toBeTruthy();
      return error.code;
    }
    throw error;
  }
  return "no error";
}

test("lists promote allow-all to custom; no lists leave it", () => {
  expect(parsePolicy({}).mode).toBe("allow-all");
  expect(parsePolicy({ allowedDomains: "a.example" }).mode).toBe("custom");
  expect(parsePolicy({ mode: "allow-all", deniedCidrs: "10.0.0.0/8" }).mode).toBe("custom");
  expect(parsePolicy({ mode: "custom" })).toMatchObject({ mode: "custom", allowedDomains: [] });
  expect(parsePolicy({ mode: "allow-all", allowHostPorts: "80" }).mode).toBe("allow-all");
});

test("domains: canonical form", () => {
  const parsed = parsePolicy({
    allowedDomains: "Example.COM., *.B.example ,bücher.example,a.example,A.example",
  });
  expect(parsed.allowedDomains).toEqual([
    "example.com",
    "*.b.example",
    "xn--bcher-kva.example",
    "a.example",
  ]);
});

test.each([
  "",
  "a,,b",
  "*",
  "*.",
  "a.*.b",
  "**.a",
  "http://a.example",
  "a.example/x",
  "a.example:80",
  "a b",
  "-a.example",
  "a-.example",
  "1.2.3.4",
  "0x7f.1",
  "[::1]",
  "a..b",
  `${"a".repeat(64)}.b`,
  "a\n.b",
  "a.example@b",
  `${"a.".repeat(130)}b`,
])("domain %j is refused", (text) =>
  expect(code(() => parsePolicy({ allowedDomains: text }))).toBe("ERR_VALIDATION_DOMAIN"),
);

test("CIDRs: canonical form", () => {
  expect(
    parsePolicy({ allowedCidrs: ["10.1.2.3/8", "2001:DB8::1/32,0.0.0.0/0"] }).allowedCidrs,
  ).toEqual(["10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0"]);
});

test.each([
  "",
  "10.0.0.0",
  "10.0.0.0/33",
  "10.0.0/8",
  "010.0.0.0/8",
  "256.0.0.0/8",
  "::/129",
  ":::/1",
  "1::2::3/64",
  "10.0.0.0/-1",
  "10.0.0.0/8x",
  "10.0.0.0/08",
  "fe80::1%eth0/64",
  "a/8",
  "1:2:3:4:5:6:7:8:9/1",
])("CIDR %j is refused", (text) => {
  expect(code(() => parsePolicy({ allowedCidrs: text }))).toBe("ERR_VALIDATION_CIDR");
  expect(code(() => parsePolicy({ deniedCidrs: text }))).toBe("ERR_VALIDATION_CIDR");
});

test.each(["allow", "Allow-all", "", "deny_all", "constructor"])("policy %j is refused", (mode) =>
  expect(code(() => parsePolicy({ mode }))).toBe("ERR_VALIDATION_NETWORK_POLICY"),
);

test("conflicts", () => {
  for (const mode of ["deny-all", "none"]) {
    for (const more of [
      { allowedDomains: "a.example" },
      { deniedCidrs: "10.0.0.0/8" },
      { allowHostPorts: "80" },
      { allowIcmp: true },
      { allowedPorts: "443" },
    ]) {
      expect(code(() => parsePolicy({ mode, ...more }))).toBe("ERR_VALIDATION_POLICY_CONFLICT");
    }
  }
  expect(code(() => parsePolicy({ mode: "none", bandwidth: "5m" }))).toBe(
    "ERR_VALIDATION_POLICY_CONFLICT",
  );
  expect(parsePolicy({ mode: "deny-all", bandwidth: "5m" }).bandwidthMbit).toBe(5);
  const ports = parsePublishedPorts("8080");
  expect(code(() => checkPortsAgainstPolicy(parsePolicy({ mode: "none" }), ports))).toBe(
    "ERR_VALIDATION_POLICY_CONFLICT",
  );
  expect(code(() => checkPortsAgainstPolicy(parsePolicy({ mode: "deny-all" }), ports))).toBe(
    "no error",
  );
});

test("ports narrow what lists allow, and need such a list", () => {
  expect(parsePolicy({ allowedDomains: "a.example", allowedPorts: "443, 22,443" })).toMatchObject({
    mode: "custom",
    allowedPorts: [443, 22],
  });
  for (const mode of ["allow-all", "custom"]) {
    for (const more of [{}, { deniedCidrs: "10.0.0.0/8" }]) {
      expect(code(() => parsePolicy({ mode, allowedPorts: [443], ...more }))).toBe(
        "ERR_VALIDATION_POLICY_CONFLICT",
      );
    }
  }
  for (const bad of ["0", "65536", "80-90", "http", "", "443,,80"]) {
    expect(code(() => parsePolicy({ allowedCidrs: "::/0", allowedPorts: bad }))).toBe(
      "ERR_VALIDATION_PORT",
    );
  }
});

test("bandwidth", () => {
  expect(parsePolicy({ bandwidth: "50mbit" }).bandwidthMbit).toBe(50);
  expect(parsePolicy({ bandwidth: "1000M" }).bandwidthMbit).toBe(1000);
  for (const bad of ["50", "0m", "1001m", "5.5m", "-1m", "m", "50mb", "1e2m", ""]) {
    expect(code(() => parsePolicy({ bandwidth: bad }))).toBe("ERR_VALIDATION_BANDWIDTH");
  }
});

test("published ports: forms", () => {
  expect(parsePublishedPorts("8080, 90:80 ,0.0.0.0:53:53/udp,[::1]:1:2/tcp")).toEqual([
    { protocol: "tcp", hostAddress: "127.0.0.1", hostPort: 8080, guestPort: 8080 },
    { protocol: "tcp", hostAddress: "127.0.0.1", hostPort: 90, guestPort: 80 },
    { protocol: "udp", hostAddress: "0.0.0.0", hostPort: 53, guestPort: 53 },
    { protocol: "tcp", hostAddress: "::1", hostPort: 1, guestPort: 2 },
  ]);
  expect(parsePublishedPorts(undefined)).toEqual([]);
});

test.each([
  "0",
  "65536",
  "080",
  "80:",
  ":80",
  "80:80:80:80",
  "a",
  "80/sctp",
  "1.2.3:80:80",
  "80-90",
  " ",
  "8080,,80",
  "1e3",
  "host:80:80",
  "[::1]:80",
])("published port %j is refused", (text) =>
  expect(code(() => parsePublishedPorts(text))).toBe("ERR_VALIDATION_PORT"),
);

test("published ports: conflicts", () => {
  for (const text of ["80,80", "80:1,80:2", "0.0.0.0:80:80,80"]) {
    expect(code(() => parsePublishedPorts(text))).toBe("ERR_VALIDATION_PORT_CONFLICT");
  }
  expect(parsePublishedPorts("80,80/udp,81:80").length).toBe(3);
});
