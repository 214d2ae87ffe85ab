/** Waiting for a moment in which the host has nothing better to do. */
import { cpus } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

const LOOK_MS = 1000;
/** Share of the host's processors beyond which it is busy. */
const BUSY = 0.5;

/** How to wait for quiet. */
export interface QuietWait {
  /** Milliseconds of quiet to wait for. */
  quietMs: number;
  /** Milliseconds after which it is given up: on a host that is always busy work is done all the same. */
  patienceMs: number;
  /** Whether something else is going on. */
  isBusy: () => boolean;
  signal: AbortSignal;
}

/** Milliseconds that the processors have spent on anything but work of low priority, and in all. */
function spent(): { busy: number; all: number } {
  let [busy, all] = [0, 0];
  for (const { times } of cpus()) {
    const working = times.user + times.sys + times.irq;
    busy += working;
    all += working + times.idle + times.nice;
  }
  return { busy, all };
}

/** Resolves once nothing has gone on for long enough, or it has been waited for too long. */
export async function quiet({ quietMs, patienceMs, isBusy, signal }: QuietWait): Promise<void> {
  const begun = performance.now();
  let since = begun;
  let before = spent();
  while (performance.now() - since < quietMs && performance.now() - begun < patienceMs) {
    await sleep(Math.min(LOOK_MS, quietMs), undefined, { signal });
    const now = spent();
    const share = (now.busy - before.busy) / Math.max(1, now.all - before.all);
    before = now;
    if (isBusy() || share > BUSY) since = performance.now();
  }
}
