/**
 * Ephemeral VMs: a pod that ends by itself soon, and is given more time for as long as its owner is there. So one
 * whose owner was killed goes, and nobody has to remember it.
 */
import type { StreamedCallOptions } from "../client/transport.ts";
import { VmsanError } from "../model/errors.ts";
import type { Pod } from "../schema/pod.ts";
import { endAnnotations } from "./manifest.ts";
import type { ClusterPods } from "./pods.ts";

/** How long a pod outlives its owner at most, and how often it is given that anew, in milliseconds. */
const LEASE_MS = 300_000;
const RENEW_MS = 60_000;

/** What this process holds. */
export class Holds {
  private readonly pods: ClusterPods;
  private readonly timers = new Map<string, NodeJS.Timeout>();

  constructor(pods: ClusterPods) {
    this.pods = pods;
  }

  /** Hold a pod that has just come up. */
  async begin(pod: Pod, options: StreamedCallOptions): Promise<void> {
    await this.renew(pod);
    this.take(pod, options);
  }

  /** Hold a pod until its owner lets go. */
  take(pod: Pod, { onHold, onHoldLost }: StreamedCallOptions): void {
    if (onHold === undefined) return;
    const { uid } = pod.metadata;
    this.end(uid);
    const timer = setInterval(() => {
      this.renew(pod).catch((error: unknown) => {
        // An API server that is away for a while is asked again: there is time for that.
        if (!(error instanceof VmsanError) || error.code !== "ERR_VM_NOT_FOUND") return;
        this.end(uid);
        onHoldLost?.();
      });
    }, RENEW_MS);
    timer.unref();
    this.timers.set(uid, timer);
    onHold(() => {
      if (!this.timers.has(uid)) return;
      this.end(uid);
      // Whoever lets go removes it, too, as a rule; else it goes by itself.
      this.pods.annotate(pod, endAnnotations(Date.now())).catch(() => undefined);
    });
  }

  private async renew(pod: Pod): Promise<void> {
    await this.pods.annotate(pod, endAnnotations(Date.now() + LEASE_MS));
  }

  /** Hold it no longer. */
  end(uid: string): void {
    clearInterval(this.timers.get(uid));
    this.timers.delete(uid);
  }
}
