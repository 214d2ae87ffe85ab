/**
 * Where the time of one command goes: what this process waited for, and what the daemon did meanwhile.
 * Kept in memory, once it is asked for; nothing is measured otherwise.
 */

/** One stretch of time, in milliseconds since the process's start. */
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

/** Timings of a VM's start that are the sum of others. */
const SUMS = new Set(["start", "total"]);
/** What this process does when it waits for nobody: it loads its parts, checks, and prints. */
const OWN = "in the client";
/** Less than that between two steps is nobody's, in milliseconds. */
const GAP_MS = 0.1;

let steps: Step[] | undefined;

/** Keep steps from now on; the first is the start of this process. */
export function keepTimeline(): void {
  steps ??= [{ name: "start of the client", from: 0, to: performance.now(), by: "client" }];
}

/** Begin a step; the function ends it. */
export function beginStep(name: string): () => void {
  const from = performance.now();
  return () => {
    steps?.push({ name, from, to: performance.now(), by: "client" });
  };
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
 * Note what the daemon says of a VM's start, or of a build, that has ended just now.
 * @param timings milliseconds by phase, in their order
 */
export function noteStart(timings: Readonly<Record<string, number>>): void {
  const { total } = timings;
  if (steps === undefined || total === undefined) return;
  let from = performance.now() - total;
  for (const [name, ms] of Object.entries(timings)) {
    if (SUMS.has(name) || ms === 0) continue;
    steps.push({ name, from, to: from + ms, by: "daemon" });
    from += ms;
  }
}

/** Note that a command has ended just now that has run so long in its guest, in milliseconds. */
export function noteCommand(durationMs: number): void {
  const to = performance.now();
  steps?.push({ name: "command", from: to - durationMs, to, by: "guest" });
}

/** The times between the client's steps up to now, as steps. */
function gaps(known: readonly Step[], end: number): Step[] {
  const found: Step[] = [];
  let until = 0;
  const gap = (from: number, to: number): void => {
    if (to - from >= GAP_MS) found.push({ name: OWN, from, to, by: "client" });
  };
  for (const { from, to, by } of known.toSorted((a, b) => a.from - b.from)) {
    if (by !== "client") continue;
    gap(until, from);
    until = Math.max(until, to);
  }
  gap(until, end);
  return found;
}

/** All steps until now in the order of their beginnings; undefined when nothing was kept. */
export function timing(): Timing | undefined {
  if (steps === undefined) return undefined;
  const totalMs = performance.now();
  const all = [...steps, ...gaps(steps, totalMs)];
  const round = (ms: number): number => Math.round(ms * 10) / 10;
  return {
    totalMs: round(totalMs),
    steps: all
      .toSorted((a, b) => a.from - b.from || b.to - a.to)
      .map(({ name, by, from, to }) => ({ name, by, fromMs: round(from), ms: round(to - from) })),
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

/**
 * The same as a file of the Trace Event Format, which Perfetto (ui.perfetto.dev) and chrome://tracing
 * read: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
 * @param title what was done
 */
export function traceEvents({ steps: all, totalMs }: Timing, title: string): object {
  const threads = ["client", "daemon", "guest"] as const;
  const place = { pid: 1 };
  const span = (tid: number, name: string, fromMs: number, ms: number): object => ({
    ...place,
    tid,
    name,
    cat: "vmsan",
    ph: "X",
    ts: Math.round(fromMs * 1000),
    dur: Math.round(ms * 1000),
  });
  return {
    displayTimeUnit: "ms",
    traceEvents: [
      { ...place, ph: "M", name: "process_name", args: { name: "vmsan" } },
      ...threads.map((name, index) => ({
        ...place,
        tid: index + 1,
        ph: "M",
        name: "thread_name",
        args: { name },
      })),
      span(1, title, 0, totalMs),
      ...all.map(({ name, by, fromMs, ms }) => span(threads.indexOf(by) + 1, name, fromMs, ms)),
    ],
  };
}
