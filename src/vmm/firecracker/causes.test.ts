/** What is said of refusals, by the words in which Firecracker 1.16.1 makes them. */
import { expect, test } from "vitest";
import { VmsanError } from "../../model/errors.ts";
import { causeOf, withLog } from "./causes.ts";

const tap = (number: number, text: string): string =>
  `Network config error: Could not create the network device: Open tap device failed: Error while creating ifreq structure: ${text} (os error ${number}). Invalid TUN/TAP Backend provided by tap0.`;

test.each([
  ["/network-interfaces/eth0", tap(1, "Operation not permitted"), /belongs to another user/],
  ["/network-interfaces/eth0", tap(16, "Device or resource busy"), /Another process/],
  ["/network-interfaces/eth0", "Couldn't open /dev/net/tun: x (os error 13)", /\/dev\/net\/tun/],
  ["/actions", "Kvm error: Error creating KVM object: No such device (os error 19)", /\/dev\/kvm/],
  ["/actions", "invalid kernel image: failed to load ELF kernel image", /uncompressed/],
  ["/boot-source", "The kernel command line is invalid: Inserting string …", /2047 bytes/],
  ["/boot-source", "The kernel file cannot be opened: x (os error 2)", /gone/],
  ["/drives/disk0", "Error manipulating the backing file: x (os error 13) /disk0", /may not open/],
  ["/vsock", "Error binding to the host-side Unix socket: x (os error 98)", /earlier start/],
  ["/snapshot/load", "Failed to get snapshot state from file: Bad magic value", /damaged/],
])("%s: %s", (path, fault, why) => {
  const cause = causeOf(path, fault);
  expect(cause?.why).toMatch(why);
  expect(cause?.fix).not.toBe("");
});

test("what is not known is left alone; the log's end is added once there is one", () => {
  expect(causeOf("/entropy", "something (os error 1)")).toBeUndefined();
  const error = new VmsanError({ code: "ERR_VMM_API", message: "no", why: "Because.", fix: "Do." });
  expect(withLog(error, "")).toBe(error);
  expect(withLog(error, "last words")).toMatchObject({
    code: "ERR_VMM_API",
    why: "Because. The VMM's log ends with: last words",
    fix: "Do.",
  });
});
