/** How much one key may do: requests a second, and VMs with what they occupy. */
import { VmsanError } from "../../model/errors.ts";
import type { Vmsan } from "../../client/vmsan.ts";
import type { VmView } from "../../model/api.ts";
import type { GatewayKey } from "../../model/gateway.ts";

/** Seconds over which the rate is averaged: as many requests may come at once. */
const BURST_S = 10;

/** Label of VMs that a gateway made: the ID of the key. */
export const KEY_LABEL = "vmsan.key";

/** What a VM, or a volume, will occupy. */
export interface Wanted {
  memMib: number;
  diskSizeBytes: number;
  /** No VM: its disk alone counts. */
  isVolume?: boolean;
}

/** What there is, and whose. */
export interface Occupied extends Wanted {
  labels: Record<string, string>;
}

/** What a copy of a volume counts that is not there any more, in bytes: as large as volumes are by default. */
const COPY_BYTES = 10 * 2 ** 30;

/** Bytes of a VM's disk and its copies of volumes. @param forked as one that comes out of it has them */
function diskBytesOf(
  { mounts, diskSizeBytes }: VmView,
  sizes: ReadonlyMap<string, number>,
  forked: boolean,
): number {
  return mounts.reduce((sum, mount) => {
    const goesAlong = forked && mount.kind === "volume" && !mount.readonly && !mount.shared;
    const isCopy = mount.kind === "volume" && (mount.copy ?? goesAlong);
    return isCopy ? sum + (sizes.get(mount.name) ?? COPY_BYTES) : sum;
  }, diskSizeBytes);
}

/** What another VM that goes on where this one is will occupy: of volumes that are written to it has copies. */
export async function forkOf(vmsan: Vmsan, { limits }: GatewayKey, vm: VmView): Promise<Wanted> {
  const { memMib, diskSizeBytes, mounts } = vm;
  if (limits.diskBytes === undefined || mounts.length === 0) return { memMib, diskSizeBytes };
  const volumes = await vmsan.volumes.list();
  const sizes = new Map(volumes.map(({ name, sizeBytes }) => [name, sizeBytes]));
  return { memMib, diskSizeBytes: diskBytesOf(vm, sizes, true) };
}

/** What to ask the daemon's lists for, of all that a key may see: one project's VMs cost no other one's callers anything. */
export function scopeOf({ admin, project }: GatewayKey): { project?: string } {
  return admin ? {} : { project };
}

/** All that may count against a key's limits; what no limit is about is not asked for. */
export async function occupied(vmsan: Vmsan, key: GatewayKey): Promise<Occupied[]> {
  const { limits } = key;
  if ([limits.vms, limits.memMib, limits.diskBytes].every((limit) => limit === undefined))
    return [];
  const vms = await vmsan.list(scopeOf(key));
  // Pods have no volumes of their own making.
  if (limits.diskBytes === undefined || vmsan.cluster) return vms;
  const volumes = await vmsan.volumes.list();
  const sizes = new Map(volumes.map(({ name, sizeBytes }) => [name, sizeBytes]));
  return [
    ...vms.map((vm) => ({
      labels: vm.labels,
      memMib: vm.memMib,
      diskSizeBytes: diskBytesOf(vm, sizes, false),
    })),
    ...volumes.map(({ labels, sizeBytes }) => ({
      labels,
      memMib: 0,
      diskSizeBytes: sizeBytes,
      isVolume: true,
    })),
  ];
}

interface Bucket {
  tokens: number;
  at: number;
}

/** Token buckets of requests, one for each key. */
export class Rates {
  private readonly buckets = new Map<string, Bucket>();
  private readonly now: () => number;

  /** @param now milliseconds of a clock that never goes back */
  constructor(now: () => number = () => performance.now()) {
    this.now = now;
  }

  /** Count a request. @throws ERR_GATEWAY_RATE with `retryAfterSeconds` in its details */
  take(key: GatewayKey): void {
    const rate = key.limits.requestsPerSecond;
    if (rate === undefined) return;
    const now = this.now();
    const bucket = this.buckets.get(key.id) ?? { tokens: rate * BURST_S, at: now };
    bucket.tokens = Math.min(rate * BURST_S, bucket.tokens + ((now - bucket.at) / 1000) * rate);
    bucket.at = now;
    this.buckets.set(key.id, bucket);
    if (bucket.tokens >= 1) {
      bucket.tokens -= 1;
      return;
    }
    const retryAfterSeconds = Math.max(1, Math.ceil((1 - bucket.tokens) / rate));
    throw new VmsanError({
      code: "ERR_GATEWAY_RATE",
      message: `Too many requests with the key ${key.name}`,
      why: `It may send ${rate} a second.`,
      fix: `Ask again in ${retryAfterSeconds} s, or have the limit raised.`,
      details: { retryAfterSeconds },
    });
  }
}

/** VMs that are being made, so that two requests at once cannot both take the last place. */
export class Quotas {
  private readonly pending = new Map<string, Wanted[]>();

  /**
   * Take a place for VMs about to be made.
   * @param there what {@link occupied} gives
   * @returns gives the place back; call it once the VMs are listed or have failed
   * @throws ERR_GATEWAY_QUOTA
   */
  reserve(key: GatewayKey, wanted: readonly Wanted[], there: readonly Occupied[]): () => void {
    const mine: Wanted[] = there.filter(({ labels }) => labels[KEY_LABEL] === key.id);
    const pending = this.pending.get(key.id) ?? [];
    const all = [...mine, ...pending, ...wanted];
    const sum = (field: "memMib" | "diskSizeBytes"): number =>
      all.reduce((total, vm) => total + vm[field], 0);
    const { vms, memMib, diskBytes } = key.limits;
    const checks: [string, number, number | undefined][] = [
      ["VMs", all.filter(({ isVolume }) => isVolume !== true).length, vms],
      ["MiB of memory", sum("memMib"), memMib],
      ["bytes of disk", sum("diskSizeBytes"), diskBytes],
    ];
    for (const [what, value, limit] of checks) {
      if (limit === undefined || value <= limit) continue;
      throw new VmsanError({
        code: "ERR_GATEWAY_QUOTA",
        message: `The key ${key.name} may not have ${value} ${what}`,
        why: `Its limit is ${limit}.`,
        fix: "Remove VMs that are not needed any more, or have the limit raised.",
      });
    }
    this.pending.set(key.id, [...pending, ...wanted]);
    return () => {
      const left = [...(this.pending.get(key.id) ?? [])];
      for (const one of wanted) left.splice(left.indexOf(one), 1);
      if (left.length === 0) this.pending.delete(key.id);
      else this.pending.set(key.id, left);
    };
  }
}
