/** What a container uses. */
import { setTimeout as sleep } from "node:timers/promises";
import type { GuestUse, VmSample } from "../../../model/stats.ts";
import { reply } from "../http/route.ts";
import type { Call } from "../http/route.ts";
import { beginStream, push } from "../http/wire.ts";
import { NEVER } from "./life/life.ts";
import type { Container } from "./container.ts";

const SECOND_MS = 1000;

/** Bytes of the guest's disks, in the form of a control group. */
function blockUse(guest: GuestUse): object {
  const of = (op: string, value: number): object => ({ major: 254, minor: 0, op, value });
  return {
    io_service_bytes_recursive: [of("read", guest.readBytes), of("write", guest.writtenBytes)],
  };
}

/** Processor time of all of a guest's processors, in nanoseconds. */
function cpuUse(sample: VmSample | undefined): object {
  const { cpuBusyMs = 0, cpuIdleMs = 0 } = sample?.guest ?? {};
  return {
    cpu_usage: {
      total_usage: cpuBusyMs * 1e6,
      usage_in_kernelmode: 0,
      usage_in_usermode: cpuBusyMs * 1e6,
    },
    system_cpu_usage: (cpuBusyMs + cpuIdleMs) * 1e6,
    online_cpus: sample?.vcpus ?? 0,
    throttling_data: { periods: 0, throttled_periods: 0, throttled_time: 0 },
  };
}

/** What a container uses, as clients see it; `precpu` is what it had used before. */
function statsView(
  { id, record }: Container,
  now: VmSample | undefined,
  before: VmSample | undefined,
): object {
  const guest = now?.guest;
  const card = now?.host;
  const named = {
    id,
    name: `/${record.name}`,
    read: now?.at ?? NEVER,
    preread: before?.at ?? NEVER,
  };
  if (guest === undefined) return named;
  return {
    ...named,
    pids_stats: { current: guest.processes },
    blkio_stats: blockUse(guest),
    num_procs: 0,
    storage_stats: {},
    cpu_stats: cpuUse(now),
    precpu_stats: cpuUse(before),
    memory_stats: {
      usage: guest.memTotalBytes - guest.memAvailableBytes,
      limit: guest.memTotalBytes,
      stats: {},
    },
    ...(card?.receivedBytes === undefined
      ? {}
      : { networks: { eth0: { rx_bytes: card.receivedBytes, tx_bytes: card.sentBytes ?? 0 } } }),
  };
}

/** What its VM uses now; undefined for one that does not run. */
async function sampleOf({ engine }: Call, container: Container): Promise<VmSample | undefined> {
  const { vm } = container.record;
  if (vm === undefined || !container.running) return undefined;
  return (await engine.vmsan.stats([vm]))[0];
}

/** `GET …/stats`: once, or each second. */
export async function sendStats(call: Call, container: Container): Promise<void> {
  const { response, query } = call;
  let before: VmSample | undefined;
  if (!query.flag("stream", true)) {
    if (!query.flag("one-shot")) {
      before = await sampleOf(call, container);
      if (before !== undefined) await sleep(SECOND_MS);
    }
    return reply(call, statsView(container, await sampleOf(call, container), before));
  }
  beginStream(response, "application/json");
  while (!response.destroyed && !container.removed) {
    const now = await sampleOf(call, container);
    if (!(await push(response, `${JSON.stringify(statsView(container, now, before))}\n`))) return;
    before = now;
    await sleep(SECOND_MS);
  }
  response.end();
}
