/** A network policy that was written to a pod: in force once its host says so. */
import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import type { Backend } from "../client/transport.ts";
import type { VmView } from "../model/api.ts";
import { VmsanError } from "../model/errors.ts";
import type { NetworkPolicy } from "../model/policy.ts";

const PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 1_000;
/** How long a host may take to hear of it, in milliseconds. */
const LIMIT_MS = 120_000;

/** Wait for it. @returns what the host says of the VM. @throws ERR_CLUSTER_HOST */
export async function settledPolicy(
  host: Backend,
  policy: NetworkPolicy,
  signal?: AbortSignal,
): Promise<VmView> {
  const end = performance.now() + LIMIT_MS;
  for (let pause = PAUSE_MS; ; pause = Math.min(LONGEST_PAUSE_MS, pause * 2)) {
    const view = await host.call<VmView>("GET", "/v1/vm");
    if (isDeepStrictEqual(view.policy, policy)) return view;
    if (performance.now() > end) {
      throw new VmsanError({
        code: "ERR_CLUSTER_HOST",
        message: `The network policy of ${view.id} is not in force`,
        why: `Its host has not taken it within ${LIMIT_MS / 1000} s; the old one holds.`,
        fix: "See the pod's events: kubectl describe pod.",
      });
    }
    await sleep(pause, undefined, signal === undefined ? {} : { signal });
  }
}
