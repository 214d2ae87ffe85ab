import { duplexPair } from "node:stream";
import { expect, test } from "vitest";
import { awaitHeld, letGo } from "./held.ts";

/** A stream to an agent that says these pieces; what it has been told so far. */
function agent(...pieces: string[]): {
  open: () => Promise<ReturnType<typeof duplexPair>[number]>;
  told: () => string;
} {
  const [host, guest] = duplexPair();
  let told = "";
  guest.on("data", (chunk: Buffer) => (told += String(chunk)));
  for (const piece of pieces) setImmediate(() => guest.write(piece));
  return { open: async () => await Promise.resolve(host), told: () => told };
}

test("a machine waits once it has said so, in whatever pieces", async () => {
  const { open } = agent("VMSAN-HE", "LD-1\n");
  await awaitHeld(open, AbortSignal.timeout(5000));
  expect((await open()).destroyed).toBe(true);
});

test("it goes on with the time and with randomness that is never the same", async () => {
  const seeds = new Set<string>();
  for (let round = 0; round < 2; round += 1) {
    const { open, told } = agent("VMSAN-GOING-1\n");
    const from = BigInt(Date.now()) * 1_000_000n;
    await letGo(open, AbortSignal.timeout(5000));
    const [, ns = "", seed = ""] = /^VMSAN-GO-1 (\d+) ([0-9a-f]{128})\n$/.exec(told()) ?? [];
    expect(BigInt(ns)).toBeGreaterThanOrEqual(from);
    expect(BigInt(ns)).toBeLessThanOrEqual(BigInt(Date.now()) * 1_000_000n);
    seeds.add(seed);
  }
  expect(seeds.size).toBe(2);
});

test.each([["something else"], ["VMSAN-GOING-1\n"], ["VMSAN-HELD-1\nand more"]])(
  "what says %j does not wait",
  async (piece) => {
    await expect(awaitHeld(agent(piece).open, AbortSignal.timeout(5000))).rejects.toMatchObject({
      code: "ERR_AGENT_PROTOCOL",
    });
  },
);

test("who has had enough stops waiting", async () => {
  const enough = new Error("enough");
  const { open } = agent("VMSAN-");
  await expect(awaitHeld(open, AbortSignal.abort(enough))).rejects.toBe(enough);
  const soon = new AbortController();
  setTimeout(() => soon.abort(enough), 20);
  const slow = agent("VMSAN-");
  await expect(awaitHeld(slow.open, soon.signal)).rejects.toBe(enough);
  expect((await slow.open()).destroyed).toBe(true);
});
