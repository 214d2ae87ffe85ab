/** What VMs use: read from the host, and asked of guests that run. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { GuestUse, HostUse, VmSample } from "../model/stats.ts";
import type { VmRecord } from "../model/vm.ts";
import { errnoOf, messageOf } from "../model/errors.ts";
import { cpuOf, residentOf, trafficOf } from "../util/process/process-use.ts";
import type { Entry } from "./records/entry.ts";
import { viewOf } from "./records/view.ts";
import type { VmTable } from "./table.ts";

/** How long a guest has to answer, in milliseconds. */
const GUEST_MS = 5_000;

/** Names of the agent's figures, in the unit of ours. */
const FIGURES: Record<keyof GuestUse, readonly [name: string, unit: number]> = {
  cpuBusyMs: ["cpuBusyMs", 1],
  cpuIdleMs: ["cpuIdleMs", 1],
  memTotalBytes: ["memTotalKib", 1024],
  memAvailableBytes: ["memAvailableKib", 1024],
  memCachedBytes: ["memCachedKib", 1024],
  diskTotalBytes: ["diskTotalBytes", 1],
  diskFreeBytes: ["diskFreeBytes", 1],
  readBytes: ["readBytes", 1],
  writtenBytes: ["writtenBytes", 1],
  receivedBytes: ["receivedBytes", 1],
  sentBytes: ["sentBytes", 1],
  processes: ["processes", 1],
};

/** What an agent says, checked: an older one says less, and a hostile one anything. */
function guestUse(reply: Record<string, unknown>): GuestUse {
  const figure = ([name, unit]: readonly [string, number]): number => {
    const value = reply[name];
    return typeof value === "number" && Number.isFinite(value) && value >= 0 ? value * unit : 0;
  };
  const entries = Object.entries(FIGURES).map(([key, source]) => [key, figure(source)]);
  return Object.fromEntries(entries);
}

/** Bytes that the files of a directory take. */
async function bytesIn(dir: string): Promise<number> {
  let sum = 0;
  try {
    for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
      if (entry.isFile()) sum += (await stat(join(entry.parentPath, entry.name))).blocks * 512;
    }
  } catch (error) {
    // It is being removed.
    if (errnoOf(error) !== "ENOENT") throw error;
  }
  return sum;
}

async function hostUse(record: VmRecord): Promise<HostUse | undefined> {
  const pid = record.process?.pid;
  const cpuMs = pid === undefined ? undefined : cpuOf(pid);
  if (pid === undefined || cpuMs === undefined) return undefined;
  const tap = record.spec.network?.tap;
  const card = tap === undefined ? undefined : trafficOf(pid, tap);
  return {
    cpuMs,
    residentBytes: residentOf(pid) ?? 0,
    diskBytes: await bytesIn(record.spec.dir),
    // The host's end of the card: what it sends, the guest receives.
    ...(card && { receivedBytes: card.sentBytes, sentBytes: card.receivedBytes }),
  };
}

/** One VM. It is not woken, and this is no use that keeps it awake. */
async function sampleOf(
  table: VmTable,
  { record, guest }: Entry,
  asks: boolean,
): Promise<VmSample> {
  const { id, name, project } = record;
  const { status } = viewOf(record);
  const ask = async (): Promise<GuestUse | undefined> => {
    if (!asks || guest === undefined || status !== "running") return undefined;
    try {
      const signal = AbortSignal.timeout(GUEST_MS);
      return guestUse(await guest.channel.request("GET", "/v1/stats", { signal }));
    } catch (error) {
      table.log.info(`${id}: no figures from the guest: ${messageOf(error)}`);
      return undefined;
    }
  };
  const at = new Date().toISOString();
  const [host, told] = await Promise.all([
    status === "running" || status === "paused" ? hostUse(record) : undefined,
    ask(),
  ]);
  const { vcpus, memMib } = record.spec;
  return {
    id,
    ...(name === undefined ? {} : { name }),
    project,
    status,
    at,
    vcpus,
    memMib,
    ...(host && { host }),
    ...(told && { guest: told }),
  };
}

/**
 * What VMs use now, in their order.
 * @param refs IDs or names; none: all VMs
 * @param options `project`: only its VMs; `guests`: false asks none, and waits for none
 * @throws ERR_VM_NOT_FOUND
 */
export async function sampleVms(
  table: VmTable,
  refs: readonly string[],
  { project, guests = true }: { project?: string | undefined; guests?: boolean } = {},
): Promise<VmSample[]> {
  const entries =
    refs.length === 0 ? [...table.entries.values()] : refs.map((ref) => table.find(ref));
  const wanted = entries.filter(
    ({ record }) => project === undefined || record.project === project,
  );
  return await Promise.all(wanted.map(async (entry) => await sampleOf(table, entry, guests)));
}
