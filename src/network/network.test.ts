/** Networks whose helper ends in the middle of a change; the kernel is a stand-in that counts what it was told. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { VmsanError } from "../model/errors.ts";
import { Realm } from "./host/realm.ts";
import { createNetworkManager } from "./network.ts";
import { parsePolicy } from "./policy/parse.ts";
import type { NetworkManager } from "./types.ts";

/** A helper that gives sockets of this host for those of namespaces, and says yes to all else. */
const HELPER = `const net = require("node:net"), dgram = require("node:dgram");
process.on("message", ({ id, op }) => {
  const reply = (handle) => process.send({ id, ok: true }, handle);
  if (op === "listen") { const server = net.createServer().listen(0, "127.0.0.1", () => reply(server)); return; }
  if (op === "udp") { const socket = dgram.createSocket("udp4").bind(0, "127.0.0.1", () => reply(socket)); return; }
  reply();
});
process.on("disconnect", () => process.exit());`;

/** A kernel of names alone. */
class StandIn extends Realm {
  readonly netns = new Set<string>();
  readonly told: string[] = [];
  /** What is lost once: the first program that was told something of it. */
  loses: RegExp | undefined;

  override get isHost(): boolean {
    return false;
  }
  override get prefix(): readonly string[] {
    return [process.execPath];
  }
  override hasNetns(name: string): boolean {
    return this.netns.has(name);
  }
  override hasLink(): boolean {
    return false;
  }
  override links(): Set<string> {
    return new Set();
  }
  override async hardwareAddresses(): Promise<Map<string, string>> {
    return await Promise.resolve(new Map());
  }
  override async release(): Promise<void> {
    await Promise.resolve();
  }
  private async take(input: string): Promise<void> {
    for (const [, what, name = ""] of input.matchAll(/^netns (add|del) (\S+)$/gm)) {
      if (what === "add") this.netns.add(name);
      else this.netns.delete(name);
    }
    this.told.push(input);
    if (this.loses?.test(input) === true) {
      this.loses = undefined;
      const lost = { code: "ERR_NETWORK_HELPER_LOST", message: "lost", why: "It ended." };
      throw new VmsanError(lost);
    }
    await Promise.resolve();
  }
  override async ip(input: string): Promise<void> {
    await this.take(input);
  }
  override async ipIn(_netns: string, input: string): Promise<void> {
    await this.take(input);
  }
  override async tcIn(_netns: string, input: string): Promise<void> {
    await this.take(input);
  }
  override async nft(input: string): Promise<void> {
    await this.take(input);
  }
  override async nftIn(_netns: string, input: string): Promise<void> {
    await this.take(input);
  }
}

function start(): { realm: StandIn; manager: NetworkManager } {
  const dir = mkdtempSync(join(tmpdir(), "vmsan-manager-"));
  const helper = join(dir, "helper.cjs");
  writeFileSync(helper, HELPER);
  const realm = new StandIn();
  const manager = createNetworkManager({ dir, helper, ipv6: false }, realm);
  onTestFinished(async () => {
    await manager.close();
    rmSync(dir, { recursive: true, force: true });
  });
  return { realm, manager };
}

const never = new AbortController().signal;
const limited = (mbit: number) =>
  parsePolicy({ mode: "custom", allowedDomains: "a.test", bandwidth: `${mbit}m` });

test.each([
  ["the links of the host's side", /^netns add/],
  ["the links inside", /tuntap add/],
  ["the limit", /^qdisc add/m],
])("a helper that ends while it makes %s: all of it is made anew", async (_what, loses) => {
  const { realm, manager } = start();
  realm.loses = loses;
  await manager.attach("vm-1", limited(50), [], never);
  expect(realm.loses).toBeUndefined();
  expect(manager.isUp("vm-1")).toBe(true);
  expect(realm.netns.size).toBe(1);
  const made = realm.told.filter((input) => input.startsWith("netns add"));
  const gone = realm.told.filter((input) => input.includes("netns del"));
  expect([made.length, gone.length]).toEqual([2, 1]);
  await manager.detach("vm-1");
  expect(realm.netns.size).toBe(0);
});

test("a limit of which nobody knows whether it was changed is taken away and made anew", async () => {
  const { realm, manager } = start();
  await manager.attach("vm-1", limited(50), [], never);
  realm.told.length = 0;
  realm.loses = /^qdisc change/m;
  await manager.update("vm-1", limited(20));
  const limits = realm.told.flatMap((input) => input.match(/^(qdisc|link) .*$/gm) ?? []);
  expect(limits).toEqual([
    expect.stringMatching(/^qdisc change dev tap0 .* 20mbit/),
    expect.stringMatching(/^qdisc change dev ifb0 .* 20mbit/),
    "qdisc del dev tap0 root",
    "qdisc del dev tap0 ingress",
    "qdisc del dev ifb0 root",
    "link del dev ifb0",
    "link add ifb0 type ifb",
    "link set dev ifb0 up",
    expect.stringMatching(/^qdisc add dev tap0 .* 20mbit/),
    expect.stringMatching(/^qdisc add dev ifb0 .* 20mbit/),
    "qdisc add dev tap0 handle ffff: ingress",
  ]);
});

test("a policy that cannot be put in force leaves the limit that there was", async () => {
  const { realm, manager } = start();
  await manager.attach("vm-1", limited(50), [], never);
  realm.told.length = 0;
  realm.loses = /^table netdev/;
  await expect(manager.update("vm-1", limited(20))).rejects.toMatchObject({ message: "lost" });
  const rates = realm.told.flatMap((input) => input.match(/(?<=root tbf rate )\d+mbit/g) ?? []);
  expect(rates.at(-1)).toBe("50mbit");
  // And is known to be what there is.
  await manager.update("vm-1", limited(30));
  expect(realm.told.join("")).toContain("30mbit");
});
