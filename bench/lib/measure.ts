/** Wall time and CPU of processes, and how they are reported. */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { loadavg } from "node:os";
import { measured } from "./bench.ts";

/** Milliseconds of a clock tick of /proc; Linux shows user space 100 a second. */
const TICK_MS = 10;

/** Milliseconds: how long it took, what it cost in user and system time, and what the daemon's share was. */
export interface Cost {
  wallMs: number;
  cpuMs: number;
  daemonCpuMs?: number;
}

/** Fields of /proc/PID/stat from the third on. */
function stat(pid: number | "self"): number[] {
  const text = readFileSync(`/proc/${pid}/stat`, "latin1");
  return text
    .slice(text.lastIndexOf(")") + 2)
    .split(" ")
    .map(Number);
}

/** User and system time of a process, in milliseconds, by ticks: add up many. */
export function processCpu(pid: number): number {
  const fields = stat(pid);
  return ((fields[11] ?? 0) + (fields[12] ?? 0)) * TICK_MS;
}

/** The same with the children that it has waited for. */
export function processTreeCpu(pid: number): number {
  const fields = stat(pid);
  return [11, 12, 13, 14].reduce((sum, at) => sum + (fields[at] ?? 0) * TICK_MS, 0);
}

/** Resident memory of a process, in MB: as it is, or the most it was. */
export function residentMb(pid: number, what: "VmRSS" | "VmHWM"): number {
  const text = readFileSync(`/proc/${pid}/status`, "latin1");
  return Math.round(Number(new RegExp(`^${what}:\\s+(\\d+)`, "m").exec(text)?.[1]) / 1000);
}

/** User and system time of this process's children that have ended, in milliseconds, by ticks. */
export function childrenCpu(): number {
  const fields = stat("self");
  return ((fields[13] ?? 0) + (fields[14] ?? 0)) * TICK_MS;
}

/**
 * Run a program to its end, alone among this process's children.
 * @param daemon process ID of a daemon that works for it
 * @throws when its status is not 0, with what it said
 */
export async function costOf(
  command: readonly [string, ...string[]],
  options: { env?: NodeJS.ProcessEnv; daemon?: number } = {},
): Promise<Cost> {
  const { env = process.env, daemon } = options;
  const [file, ...args] = command;
  const before = { children: childrenCpu(), daemon: daemon === undefined ? 0 : processCpu(daemon) };
  const start = performance.now();
  await new Promise<void>((resolve, reject) => {
    const child = spawn(file, args, { env, stdio: ["ignore", "ignore", "pipe"] });
    measured(child);
    let said = "";
    child.stderr.on("data", (chunk: Buffer) => (said = (said + chunk.toString()).slice(-2000)));
    child.on("error", reject);
    child.on("close", (code, signal) => {
      if (code === 0) resolve();
      else reject(new Error(`${command.join(" ")}: ${signal ?? `status ${code}`}: ${said}`));
    });
  });
  return {
    wallMs: performance.now() - start,
    cpuMs: childrenCpu() - before.children,
    ...(daemon === undefined ? {} : { daemonCpuMs: processCpu(daemon) - before.daemon }),
  };
}

/** The middle one. */
export function median(list: readonly number[]): number {
  return list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)] ?? Number.NaN;
}

/** Many costs as one: the middle wall time, the mean of what is counted by ticks. */
export function summary(costs: readonly Cost[]): Cost {
  const mean = (take: (cost: Cost) => number): number =>
    costs.reduce((sum, cost) => sum + take(cost), 0) / costs.length;
  return {
    wallMs: median(costs.map(({ wallMs }) => wallMs)),
    cpuMs: mean(({ cpuMs }) => cpuMs),
    ...(costs.some(({ daemonCpuMs }) => daemonCpuMs !== undefined)
      ? { daemonCpuMs: mean(({ daemonCpuMs }) => daemonCpuMs ?? 0) }
      : {}),
  };
}

/**
 * Run each of these once a round, by turns and in both directions, so that what else the host does
 * burdens all alike. Two rounds before the first fill caches and are not counted.
 */
export async function byTurns<Name extends string>(
  rounds: number,
  what: Record<Name, () => Promise<Cost>>,
): Promise<Record<Name, Cost>> {
  const names = Object.keys(what) as Name[];
  const costs = Object.fromEntries(names.map((name) => [name, [] as Cost[]])) as Record<
    Name,
    Cost[]
  >;
  for (let round = -2; round < rounds; round += 1) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      const cost = await what[name]();
      if (round >= 0) costs[name].push(cost);
    }
  }
  return Object.fromEntries(names.map((name) => [name, summary(costs[name])])) as Record<
    Name,
    Cost
  >;
}

/** Print one line of JSON, numbers to a tenth. */
export function report(line: Record<string, unknown>): void {
  const round = (_key: string, value: unknown): unknown =>
    typeof value === "number" ? Math.round(value * 100) / 100 : value;
  console.log(JSON.stringify({ ...line, load: loadavg()[0] }, round));
}
