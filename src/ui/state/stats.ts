/** What VMs use, with what they used in the last minutes, while somebody looks. */
import { useEffect } from "preact/hooks";
import { ratesOf } from "../../model/stats.ts";
import type { VmSample } from "../../model/stats.ts";
import { call } from "../api/client.ts";
import { Store, useStore } from "./store.ts";

/** Milliseconds between samples. */
const SAMPLE_MS = 2_000;
/** Samples that are kept: five minutes. */
const KEPT = 150;

/** One VM's figures. */
export interface Usage {
  latest: VmSample;
  /** Percent of all the guest's processors, or of the host's where the guest says nothing; oldest first. */
  cpu: number[];
  /** Bytes of memory that the guest uses, or the VMM's; oldest first. */
  memory: number[];
  /** Bytes a second: to and from its card. */
  received?: number;
  sent?: number;
}

/** By the VM's ID. */
const usage = new Store<ReadonlyMap<string, Usage>>(new Map());

/** What the guest uses of its memory, as far as it is known. */
export function memoryUsed({ guest, host }: VmSample): number | undefined {
  if (guest !== undefined) return guest.memTotalBytes - guest.memAvailableBytes;
  return host?.residentBytes;
}

function rate(
  before: number | undefined,
  after: number | undefined,
  ms: number,
): number | undefined {
  if (before === undefined || after === undefined || after < before || ms <= 0) return undefined;
  return ((after - before) / ms) * 1000;
}

/** The card's counters: the host's where it has them. */
const card = ({ host, guest }: VmSample, what: "receivedBytes" | "sentBytes"): number | undefined =>
  host?.[what] ?? guest?.[what];

/** A VM's figures with one more sample. */
function withSample(old: Usage | undefined, sample: VmSample): Usage {
  const cpu = [...(old?.cpu ?? [])];
  const memory = [...(old?.memory ?? [])];
  const used = memoryUsed(sample);
  if (used !== undefined) memory.push(used);
  if (old === undefined) return { latest: sample, cpu, memory };
  const { guestCpuPercent, hostCpuPercent } = ratesOf(old.latest, sample);
  const busy =
    guestCpuPercent ?? (hostCpuPercent === undefined ? undefined : hostCpuPercent / sample.vcpus);
  if (busy !== undefined) cpu.push(Math.min(100, busy));
  const ms = Date.parse(sample.at) - Date.parse(old.latest.at);
  return {
    latest: sample,
    cpu: cpu.slice(-KEPT),
    memory: memory.slice(-KEPT),
    received: rate(card(old.latest, "receivedBytes"), card(sample, "receivedBytes"), ms),
    sent: rate(card(old.latest, "sentBytes"), card(sample, "sentBytes"), ms),
  };
}

async function sample(path: string, signal: AbortSignal): Promise<void> {
  const { vms } = await call<{ vms: VmSample[] }>("GET", path, { signal });
  const next = new Map(usage.value);
  for (const one of vms) next.set(one.id, withSample(next.get(one.id), one));
  usage.value = next;
}

/** Figures of all VMs, or of one, renewed for as long as the component is there. */
export function useUsage(vm?: string): ReadonlyMap<string, Usage> {
  useEffect(() => {
    const abort = new AbortController();
    let busy = false;
    const look = (): void => {
      if (busy || document.visibilityState !== "visible") return;
      busy = true;
      sample(vm === undefined ? "/v1/stats" : `/v1/stats?vm=${vm}`, abort.signal)
        // The next look may be luckier; that the gateway is gone is said elsewhere.
        .catch(() => undefined)
        .finally(() => (busy = false));
    };
    look();
    const timer = setInterval(look, SAMPLE_MS);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, [vm]);
  return useStore(usage);
}
