/** The fence where clocks are not what they seem: a machine that sleeps, a date that is set. */
import type * as os from "node:os";
import { uptime } from "node:os";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { temporary } from "../../../test/fixtures/ladder.ts";
import type { Vmsan } from "../../client/vmsan.ts";
import type { PodRecord } from "../../schema/pod.ts";
import { POD_LABEL } from "../pods/spec/plan.ts";
import { Fence, sinceBoot } from "./fence.ts";

vi.mock("node:os", async (original) => ({
  ...(await original<typeof os>()),
  uptime: vi.fn(),
}));

const place = temporary();
const AFTER_MS = 20_000;
const record: PodRecord = {
  uid: "u",
  namespace: "team",
  name: "a",
  restarts: 0,
  toleratesSeconds: 0,
};
const halted: string[] = [];
let fence: Fence | undefined;

beforeEach(() => {
  vi.mocked(uptime).mockReturnValue(1000);
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "Date", "performance"] });
});
afterEach(() => {
  fence?.close();
  vi.useRealTimers();
  halted.length = 0;
});

/** A fence of one pod, of which its process knows, or its VM alone. */
async function start(knows: boolean): Promise<Fence> {
  const pause = async (): Promise<void> => {
    halted.push("vm");
    await Promise.resolve();
  };
  const freeze = async (): Promise<boolean> => {
    halted.push("pod");
    return await Promise.resolve(true);
  };
  const pod = { record, freeze, thaw: async () => await Promise.resolve() };
  const vm = { id: "vm-1", view: { labels: { [POD_LABEL]: "u" }, status: "running" }, pause };
  fence = new Fence({
    directory: place.path,
    afterMs: AFTER_MS,
    pods: () => (knows ? [pod] : []),
    vmsan: { vms: async () => await Promise.resolve([vm]) } as unknown as Vmsan,
    log: { info: () => undefined, error: () => undefined },
  });
  await fence.start(() => new Map([["u", record]]));
  return fence;
}

test("the time in which the machine has slept is silence, too", async () => {
  const made = await start(true);
  await made.contact(sinceBoot());
  await vi.advanceTimersByTimeAsync(1_000);
  expect(halted).toEqual([]);
  // No timer and no other clock of a process tells of it.
  vi.mocked(uptime).mockReturnValue(1000 + 600);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(halted).toEqual(["pod"]);
});

test("a date that is set back hides no silence from the next process; another boot has no VMs", async () => {
  await (await start(true)).contact(sinceBoot());
  fence?.close();
  vi.setSystemTime(Date.now() - 3_600_000);
  vi.mocked(uptime).mockReturnValue(1000 + 60);
  await start(false);
  expect(halted).toEqual(["vm"]);
  fence?.close();
  vi.mocked(uptime).mockReturnValue(100);
  await start(false);
  expect(halted).toEqual(["vm"]);
});
