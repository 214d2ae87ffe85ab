/** In which order templates are made, and which are not. */
import { onTestFinished, expect, test, vi } from "vitest";
import { MakingLine } from "./line.ts";

const PATIENT = { timeout: 60_000 };

/** A line, what it has made, what it was told, and what gives it a quiet moment once it waits for one. */
function line(): {
  waits: MakingLine;
  add: (...keys: string[]) => void;
  made: string[];
  said: string[];
  quiet: () => Promise<void>;
  moments: () => number;
} {
  const stopping = new AbortController();
  const made: string[] = [];
  const said: string[] = [];
  let moments = 0;
  let go: (() => void) | undefined;
  const waits = new MakingLine({
    isThere: async (key) => await Promise.resolve(made.includes(key)),
    whenQuiet: async () => {
      moments += 1;
      await new Promise<void>((resolve, reject) => {
        go = resolve;
        stopping.signal.addEventListener("abort", () => reject(new Error("stopped")));
      });
    },
    failed: (error, key = "") => void said.push(`${key}: ${String(error)}`),
    signal: stopping.signal,
  });
  onTestFinished(async () => {
    stopping.abort();
    await waits.close();
  });
  const make = (key: string) => async (): Promise<void> => {
    await Promise.resolve();
    if (key.startsWith("bad")) throw new Error("no");
    made.push(key);
  };
  return {
    waits,
    made,
    said,
    add: (...keys) => {
      for (const key of keys) waits.add(key, make(key));
    },
    quiet: async () => {
      await vi.waitFor(() => expect(go).toBeDefined(), PATIENT);
      go?.();
      go = undefined;
    },
    moments: () => moments,
  };
}

test("however many kinds of VMs there are, few templates wait to be made: those that were wanted last", () => {
  const { waits, add } = line();
  for (let kind = 1; kind <= 100; kind += 1) add("often", `kind${kind}`);
  expect(waits.keys).toEqual([
    "often",
    ...[94, 95, 96, 97, 98, 99, 100].map((one) => `kind${one}`),
  ]);
});

test("one that is wanted again and again keeps its place, and one that is there takes nobody's", async () => {
  const { add, made, quiet, moments } = line();
  add("machine", "image");
  await quiet();
  await vi.waitFor(() => expect(made).toEqual(["machine"]), PATIENT);
  // VMs start all the time, each from the machine.
  for (let starts = 0; starts < 10; starts += 1) add("machine", "image");
  await quiet();
  await vi.waitFor(() => expect(made).toEqual(["machine", "image"]), PATIENT);
  add("other");
  await quiet();
  await vi.waitFor(() => expect(made).toContain("other"), PATIENT);
  expect(moments()).toBe(3);
});

test("one that cannot be made is told of, and keeps none of the others from being made", async () => {
  const { add, made, said, quiet, waits } = line();
  add("bad", "good");
  await quiet();
  await quiet();
  await vi.waitFor(() => expect(made).toEqual(["good"]), PATIENT);
  expect(said).toEqual([expect.stringMatching(/^bad: .*no/)]);
  expect(waits.keys).toEqual([]);
  // Whoever has such VMs started all the time keeps nobody waiting with it.
  add("bad");
  expect(waits.keys).toEqual([]);
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 11 * 60_000 });
  onTestFinished(() => void vi.useRealTimers());
  add("bad");
  expect(waits.keys).toEqual(["bad"]);
});
