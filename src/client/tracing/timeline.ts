/**
 * Where the time of one command goes: what this process waited for, and what the daemon did meanwhile.
 * Kept in memory, once it is asked for; nothing is measured otherwise.
 */
import type { CallTiming } from "../../model/api.ts";

/** One stretch of time, in milliseconds as performance.now() tells. */
export interface Step {
  name: string;
  from: number;
  to: number;
  /** Who did it: what daemon and guest did lies within one of the client's. */
  by: "client" | "daemon" | "guest";
}

/** What `--timing` says. */
export interface Timing {
  totalMs: number;
  steps: { name: string; by: Step["by"]; fromMs: number; ms: number }[];
}

/** What this process does when it waits for nobody: it loads its parts, checks, and prints. */
const OWN = "in the client";
/** Less than that between two steps is nobody's, in milliseconds. */
const GAP_MS = 0.1;

/** No shell takes longer than that to come to this program; what says so is from elsewhere. */
const MAX_BEFORE_MS = 60_000;

let steps: Step[] | undefined;
/** Steps that have not ended. */
const open = new Set<Omit<Step, "to">>();
/** The command's beginning, as performance.now() tells: before this process was Node.js. */
let began = 0;

/** Whether steps are kept. */
export function isTimed(): boolean {
  return steps !== undefined;
}

/**
 * Keep steps from now on; the first is the start of this process.
 * @param since when bin/vmsan began, in nanoseconds since 1970; what is no such number is passed over
 */
export function keepTimeline(since = ""): void {
  if (steps !== undefined) return;
  const before = /^\d{19}$/.test(since) ? performance.timeOrigin - Number(since) / 1e6 : 0;
  began = before > 0 && before < MAX_BEFORE_MS ? -before : 0;
  steps = [{ name: "start of the client", from: began, to: performance.now(), by: "client" }];
}

/** Begin a step; the function ends it. */
export function beginStep(name: string): () => void {
  if (steps === undefined) return () => undefined;
  const step = { name, from: performance.now(), by: "client" } as const;
  open.add(step);
  return () => {
    if (open.delete(step)) steps?.push({ ...step, to: performance.now() });
  };
}

/** A step from now until this is settled, which is another's to wait for. */
export function stepUntil(name: string, settled: Promise<unknown>): void {
  const end = beginStep(name);
  settled.then(end, end);
}

/** Do work as a step. */
export async function asStep<T>(name: string, body: () => Promise<T>): Promise<T> {
  const end = beginStep(name);
  try {
    return await body();
  } finally {
    end();
  }
}

/**
 * Note what the other side says of a call that has been answered just now.
 * @param began when the call was made, as performance.now() tells
 */
export function noteCall(told: CallTiming, began: number): void {
  if (steps === undefined) return;
  const end = performance.now();
  // Clocks of two machines have nothing in common: the answer's coming is the one moment that both know.
  const start = Math.max(began, end - told.ms);
  const own = told.phases.map(({ name, fromMs, ms, by }): Step => ({
    name,
    from: Math.min(end, Math.max(start, start + fromMs)),
    to: Math.min(end, start + fromMs + ms),
    by: by ?? "daemon",
  }));
  steps.push(...own, ...gaps(own, { from: start, to: end, name: "in the daemon", by: "daemon" }));
}

/** Note that a command has ended just now that has run so long in its guest, in milliseconds. */
export function noteCommand(durationMs: number): void {
  const to = performance.now();
  steps?.push({ name: "command", from: to - durationMs, to, by: "guest" });
}

/** The times of a stretch that no step covers, as steps. */
function gaps(known: readonly Step[], whole: Step): Step[] {
  const found: Step[] = [];
  let until = whole.from;
  const gap = (to: number): void => {
    if (to - until >= GAP_MS) found.push({ ...whole, from: until, to });
  };
  for (const { from, to } of known.toSorted((a, b) => a.from - b.from)) {
    gap(from);
    until = Math.max(until, to);
  }
  gap(whole.to);
  return found;
}

/** All steps until now in the order of their beginnings; undefined when nothing was kept. */
export function timing(): Timing | undefined {
  if (steps === undefined) return undefined;
  const end = performance.now();
  const known = [...steps, ...[...open].map((step): Step => ({ ...step, to: end }))];
  const own = known.filter(({ by }) => by === "client");
  // What has ended while nobody in this process waited for it is in none of its steps.
  const all = [...known, ...gaps(own, { name: OWN, from: began, to: end, by: "client" })];
  const at = (ms: number): number => Math.round((ms - began) * 10) / 10;
  // Ends are rounded, not lengths: what lies within another step does so afterwards.
  const length = (from: number, to: number): number => Math.round((at(to) - at(from)) * 10) / 10;
  return {
    totalMs: at(end),
    steps: all
      .toSorted((a, b) => a.from - b.from || b.to - a.to)
      .map(({ name, by, from, to }) => ({ name, by, fromMs: at(from), ms: length(from, to) })),
  };
}

/** Lines of text that say the same. */
export function timingLines({ totalMs, steps: all }: Timing): string[] {
  const line = (at: string, ms: number, name: string): string =>
    `${at.padStart(9)} ${ms.toFixed(1).padStart(9)}  ${name}`;
  return [
    "       at        ms",
    ...all.map(({ name, by, fromMs, ms }) =>
      line(fromMs.toFixed(1), ms, by === "client" ? name : `  ${by}: ${name}`),
    ),
    line("", totalMs, "in all"),
  ];
}

/** Steps in as few lanes as they need so that, in each, they follow or contain each other: viewers show no others. */
function lanesOf(all: Timing["steps"]): Timing["steps"][] {
  const lanes: Timing["steps"][] = [];
  const ends = ({ fromMs, ms }: Timing["steps"][number]): number => fromMs + ms;
  // In the order of their beginnings, the longer one first.
  for (const step of all) {
    const hasRoom = (lane: Timing["steps"]): boolean =>
      lane.every(
        (other) => ends(other) <= step.fromMs + EPSILON || ends(step) <= ends(other) + EPSILON,
      );
    const lane = lanes.find(hasRoom);
    if (lane === undefined) lanes.push([step]);
    else lane.push(step);
  }
  return lanes;
}

/** Sums of tenths are as good as equal below that. */
const EPSILON = 0.01;

/**
 * The same as a file of the Trace Event Format, which Perfetto (ui.perfetto.dev) and chrome://tracing
 * read: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
 * @param title what was done
 */
export function traceEvents({ steps: all, totalMs }: Timing, title: string): object {
  const place = { pid: 1 };
  const whole = { name: title, by: "client", fromMs: 0, ms: totalMs } as const;
  const lanes = (["client", "daemon", "guest"] as const).flatMap((by) => {
    const own = all.filter((step) => step.by === by);
    const made = lanesOf(by === "client" ? [whole, ...own] : own);
    return made.map((lane) => ({ by, lane }));
  });
  return {
    displayTimeUnit: "ms",
    traceEvents: [
      { ...place, ph: "M", name: "process_name", args: { name: "vmsan" } },
      ...lanes.flatMap(({ by, lane }, index) => [
        { ...place, tid: index + 1, ph: "M", name: "thread_name", args: { name: by } },
        ...lane.map(({ name, fromMs, ms }) => ({
          ...place,
          tid: index + 1,
          name,
          cat: "vmsan",
          ph: "X",
          ts: Math.round(fromMs * 1000),
          dur: Math.round(ms * 1000),
        })),
      ]),
    ],
  };
}
