/** Hosts and processors by name. */
import { expect, test } from "vitest";
import { architectureOf } from "./architecture.ts";
import { bracketed } from "./bracketed.ts";
import { isLoopback } from "./loopback.ts";

test.each([
  ["localhost", true],
  ["LocalHost", true],
  ["registry.localhost", true],
  ["127.0.0.1", true],
  ["127.200.3.4", true],
  ["::1", true],
  ["[::1]", true],
  ["0:0:0:0:0:0:0:1", true],
  ["::ffff:127.0.0.1", true],
  [new URL("http://[::ffff:127.0.0.1]").hostname, true],
  ["127.0.0.1.example.com", false],
  ["localhost.example.com", false],
  ["notlocalhost", false],
  ["127.1", false],
  ["0.0.0.0", false],
  ["::", false],
  ["::ffff:10.0.0.1", false],
  ["10.0.0.1", false],
  ["", false],
])("%s is this machine itself: %s", (host, itself) => {
  expect(isLoopback(host)).toBe(itself);
});

test("an IPv6 address is in brackets before a port", () => {
  expect(["::1", "10.0.0.1", "name"].map(bracketed)).toEqual(["[::1]", "10.0.0.1", "name"]);
});

test.each([
  ["x64", ["amd64"]],
  ["X86-64", ["amd64"]],
  ["aarch64", ["arm64"]],
  ["armhf", ["arm", "v7"]],
  ["riscv64", ["riscv64"]],
  ["constructor", ["constructor"]],
])("%s is %j", (called, known) => {
  expect(architectureOf(called)).toEqual(known);
});
