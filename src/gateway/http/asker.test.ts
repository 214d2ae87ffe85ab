import type { IncomingMessage } from "node:http";
import { expect, test } from "vitest";
import { askerOf } from "./asker.ts";

const from = (remoteAddress: string | undefined, forwarded?: string): IncomingMessage =>
  ({
    socket: { remoteAddress },
    headers: forwarded === undefined ? {} : { "x-forwarded-for": forwarded },
  }) as unknown as IncomingMessage;

test("one network is one asker", () => {
  for (const [address, asker] of [
    ["192.0.2.7", "192.0.2.7"],
    ["::ffff:192.0.2.7", "192.0.2.7"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2"],
    ["2001:db8:1:2::6", "2001:db8:1:2"],
    ["2001:0db8::6", "2001:db8:0:0"],
    ["::1", "0:0:0:0"],
    ["64:ff9b::192.0.2.7", "64:ff9b:0:0"],
    [undefined, ""],
  ] as const)
    expect(askerOf(from(address), false), address).toBe(asker);
});

test("what a proxy has seen counts behind one, and what a client says nowhere", () => {
  const request = from("127.0.0.1", "198.51.100.1, 192.0.2.7");
  expect(askerOf(request, false)).toBe("127.0.0.1");
  expect(askerOf(request, true)).toBe("192.0.2.7");
  expect(askerOf(from("127.0.0.1"), true)).toBe("127.0.0.1");
});
