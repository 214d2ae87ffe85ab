/** What a sandbox uses, in E2B's words. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Vm } from "../../../client/vm.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import { ratesOf } from "../../../model/stats.ts";

/** How long processor time is watched, in milliseconds. */
const WATCH_MS = 200;

/** One sample of a running sandbox; sizes in bytes. */
export async function sample(vmsan: Vmsan, vm: Vm): Promise<object> {
  const [before] = await vmsan.stats([vm.id]);
  await sleep(WATCH_MS);
  const [after] = await vmsan.stats([vm.id]);
  const guest = after?.guest;
  const rates = before && after ? ratesOf(before, after) : {};
  const now = new Date(after?.at ?? Date.now());
  return {
    timestamp: now.toISOString(),
    timestampUnix: Math.floor(now.getTime() / 1000),
    cpuCount: vm.view.vcpus,
    cpuUsedPct: rates.guestCpuPercent ?? 0,
    memUsed: guest === undefined ? 0 : guest.memTotalBytes - guest.memAvailableBytes,
    memTotal: guest?.memTotalBytes ?? 0,
    memCache: guest?.memCachedBytes ?? 0,
    diskUsed: guest === undefined ? 0 : guest.diskTotalBytes - guest.diskFreeBytes,
    diskTotal: guest?.diskTotalBytes ?? 0,
  };
}
