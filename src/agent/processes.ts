/** What runs in a guest besides its kernel and its agent. */
import { protocolError } from "./frames.ts";
import type { GuestTransport } from "./transport.ts";

/** One process. */
export interface GuestProcess {
  pid: number;
  ppid: number;
  uid: number;
  /** Name below /dev; empty: it has none. */
  tty: string;
  /** One letter, as proc(5) has it. */
  state: string;
  /** Since the guest's boot, in milliseconds. */
  startMs: number;
  /** Of processors, in milliseconds. */
  cpuMs: number;
  sizeKib: number;
  rssKib: number;
  /** The name in brackets where there are none. */
  args: string[];
}

/** Processes, and how long the guest runs. */
export interface ProcessList {
  uptimeMs: number;
  processes: GuestProcess[];
}

/** Check one entry of a guest's answer. */
function parseProcess(value: unknown): GuestProcess {
  if (typeof value !== "object" || value === null) throw protocolError("A process is no object.");
  const given = value as Record<string, unknown>;
  const count = (key: string): number => {
    const number = given[key];
    if (typeof number === "number" && Number.isFinite(number)) return number;
    throw protocolError(`A process whose ${key} is no number.`);
  };
  const text = (key: string): string => {
    const word = given[key];
    return typeof word === "string" ? word.slice(0, 64) : "";
  };
  const args = Array.isArray(given["args"]) ? given["args"] : [];
  return {
    pid: count("pid"),
    ppid: count("ppid"),
    uid: count("uid"),
    tty: text("tty"),
    state: text("state"),
    startMs: count("startMs"),
    cpuMs: count("cpuMs"),
    sizeKib: count("sizeKib"),
    rssKib: count("rssKib"),
    args: args.filter((word) => typeof word === "string"),
  };
}

/** All processes but the kernel's threads and the agent's own, by their numbers. */
export async function listProcesses(transport: GuestTransport): Promise<ProcessList> {
  const reply = await transport.request<{ uptimeMs?: unknown; processes?: unknown }>(
    "GET",
    "/v1/processes",
    { idempotent: true },
  );
  if (!Array.isArray(reply.processes)) throw protocolError("A list of processes that is no list.");
  return {
    uptimeMs: typeof reply.uptimeMs === "number" ? reply.uptimeMs : 0,
    processes: reply.processes.map(parseProcess).toSorted((a, b) => a.pid - b.pid),
  };
}
