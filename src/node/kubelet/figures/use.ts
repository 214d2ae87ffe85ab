/**
 * figures/: what pods use, as `kubectl top` and collectors of metrics ask for it.
 *
 * use.ts: samples of the pods' VMs, not more often than makes sense, and their rates.
 */
import type { Vmsan } from "../../../client/vmsan.ts";
import type { VmSample } from "../../../model/stats.ts";
import { messageOf } from "../../../model/errors.ts";
import type { RunningPod, RunningPods } from "../../pods/running.ts";

/** How long a sample is as good as a new one, in milliseconds. */
const FRESH_MS = 2_000;

/** What a pod uses at one moment. */
export interface PodUse {
  pod: RunningPod;
  /** ISO 8601. */
  at: string;
  /** Processor time since its VM was started, in nanoseconds, and what it takes of a processor now. */
  cpuNs: number;
  cpuNanoCores: number | undefined;
  /** Memory of the host that its VM holds, and that part of it which its programs use. */
  residentBytes: number;
  workingSetBytes: number;
  /** What the VM may take. */
  limitBytes: number;
  disk: { usedBytes: number; totalBytes: number; freeBytes: number } | undefined;
  network: { receivedBytes: number; sentBytes: number } | undefined;
}

/** All pods' use at one moment; an error, where they could not be asked. */
export interface NodeUse {
  pods: PodUse[];
  error: string | undefined;
}

/** Looks at the VMs of a node's pods. */
export class Uses {
  private readonly vmsan: Vmsan;
  private readonly pods: RunningPods;
  private before = new Map<string, VmSample>();
  private last: { taken: number; use: Promise<NodeUse> } | undefined;

  constructor(vmsan: Vmsan, pods: RunningPods) {
    this.vmsan = vmsan;
    this.pods = pods;
  }

  /** What they use now. Never rejects. */
  async now(): Promise<NodeUse> {
    const taken = performance.now();
    if (this.last !== undefined && taken - this.last.taken < FRESH_MS) return await this.last.use;
    const use = this.look();
    this.last = { taken, use };
    return await use;
  }

  private async look(): Promise<NodeUse> {
    const byVm = new Map(this.pods.list().map((pod) => [pod.vm, pod]));
    try {
      const samples = byVm.size === 0 ? [] : await this.vmsan.stats();
      const { before } = this;
      this.before = new Map(samples.map((sample) => [sample.id, sample]));
      const uses = samples.map((sample) => {
        const pod = byVm.get(sample.id);
        return pod === undefined ? undefined : useOf(pod, sample, before.get(sample.id));
      });
      return { pods: uses.filter((use) => use !== undefined), error: undefined };
    } catch (error) {
      return { pods: [], error: messageOf(error) };
    }
  }
}

function useOf(
  pod: RunningPod,
  sample: VmSample,
  before: VmSample | undefined,
): PodUse | undefined {
  const { host, guest } = sample;
  if (host === undefined) return undefined;
  const ms = before === undefined ? 0 : Date.parse(sample.at) - Date.parse(before.at);
  const spent = host.cpuMs - (before?.host?.cpuMs ?? Infinity);
  // A guest can say what it likes: at most what the host sees.
  const said = guest === undefined ? Infinity : guest.memTotalBytes - guest.memAvailableBytes;
  const { receivedBytes, sentBytes } = host;
  return {
    pod,
    at: sample.at,
    cpuNs: Math.round(host.cpuMs * 1e6),
    cpuNanoCores: ms > 0 && spent >= 0 ? Math.round((spent / ms) * 1e9) : undefined,
    residentBytes: host.residentBytes,
    workingSetBytes: Math.max(0, Math.min(said, host.residentBytes)),
    limitBytes: sample.memMib * 2 ** 20,
    disk:
      guest === undefined
        ? undefined
        : {
            usedBytes: host.diskBytes,
            totalBytes: guest.diskTotalBytes,
            freeBytes: guest.diskFreeBytes,
          },
    network:
      receivedBytes === undefined || sentBytes === undefined
        ? undefined
        : { receivedBytes, sentBytes },
  };
}
