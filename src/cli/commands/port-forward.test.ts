import { expect, test } from "vitest";
import { parseForwarding } from "./port-forward.ts";

const tcp = (port: number, host = "127.0.0.1"): object => ({ network: "tcp", host, port });

test.each([
  ["8080", tcp(8080), tcp(8080)],
  ["8080:80", tcp(8080), tcp(80)],
  ["0.0.0.0:8080:80", tcp(8080, "0.0.0.0"), tcp(80)],
  ["8080:10.0.0.1:80", tcp(8080), tcp(80, "10.0.0.1")],
  ["/run/a:80", { network: "unix", path: "/run/a" }, tcp(80)],
  ["8080:/run/b", tcp(8080), { network: "unix", path: "/run/b" }],
])("%s", (text, local, remote) => expect(parseForwarding(text)).toEqual({ local, remote }));

test.each(["", ":80", "80:", "70000:1", "a:b:c:d:e"])("%j is refused", (text) =>
  expect(() => parseForwarding(text)).toThrow(/Invalid/),
);
