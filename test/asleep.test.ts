/** Streams of a VM that sleeps, by clients of little patience: directly and through a gateway. */
import { once } from "node:events";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { fakeDaemon } from "../src/daemon/testing.ts";
import type { FakeDaemon } from "../src/daemon/testing.ts";
import { Keys } from "../src/gateway/access/keys.ts";
import { startGateway } from "../src/gateway/gateway.ts";
import type { ListeningGateway } from "../src/gateway/http/server.ts";
import { Vmsan } from "../src/index.ts";
import { Sleep } from "../src/sandbox/snapshots/sleep.ts";
import { layoutOf } from "../src/util/paths.ts";

const PATIENCE_MS = 3000;

let daemon: FakeDaemon;
let gateway: ListeningGateway;

beforeAll(async () => {
  daemon = await fakeDaemon();
  gateway = await startGateway({ dir: daemon.dir, listen: "127.0.0.1:0", driver: "fake" });
});

afterEach(() => void vi.restoreAllMocks());

afterAll(async () => {
  await gateway?.close();
  await daemon?.close();
});

test.each(["the daemon", "a gateway"])("by %s", async (way) => {
  const keys = new Keys(layoutOf(daemon.dir).gateway);
  const { text: key } = await keys.create({ project: "ours" });
  const vmsan = new Vmsan(
    way === "the daemon"
      ? { dir: daemon.dir, start: false }
      : { remote: { url: gateway.url, key } },
  );
  const vm = await vmsan.create({});
  const stream = vm.spawn(["cat"], {}, { reconnectMs: PATIENCE_MS });
  await stream.started;
  // A machine that sleeps answers nobody until it is woken, which here is after more than the patience.
  const awake = Date.now() + 1.5 * PATIENCE_MS;
  // oxlint-disable-next-line typescript/unbound-method -- called with its object below
  const { channel } = Sleep.prototype;
  vi.spyOn(Sleep.prototype, "channel").mockImplementation(async function (
    this: Sleep,
    ...args: Parameters<typeof channel>
  ) {
    const [, , signal] = args;
    if (Date.now() >= awake) return await channel.apply(this, args);
    signal.throwIfAborted();
    await once(signal, "abort");
    throw signal.reason;
  });
  // What has the connection is replaced.
  if (way === "the daemon") await daemon.restart();
  else {
    const { port } = gateway;
    await gateway.close();
    gateway = await startGateway({ dir: daemon.dir, listen: `127.0.0.1:${port}`, driver: "fake" });
  }
  stream.stdin.end("still there");
  let said = "";
  for await (const part of stream.stdout) said += String(part);
  expect(said).toBe("still there");
});
