/** How long a pod stays with a node that nobody hears of. Pure. */
import type { Pod } from "../../../schema/pod.ts";

/** Taints of a node that has fallen silent. */
const SILENT = ["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"];

/**
 * Seconds that a pod stays bound to a node which has fallen silent, before it is replaced elsewhere;
 * undefined: for ever.
 */
export function toleratedSeconds({ spec }: Pod): number | undefined {
  let shortest: number | undefined;
  for (const taint of SILENT) {
    const matching = (spec.tolerations ?? []).filter(
      ({ key, effect }) => (!key || key === taint) && (!effect || effect === "NoExecute"),
    );
    const limits = matching.map(({ tolerationSeconds }) => tolerationSeconds ?? Infinity);
    const seconds = limits.length === 0 ? 0 : Math.max(0, Math.min(...limits));
    shortest = Math.min(shortest ?? Infinity, seconds);
  }
  return shortest === Infinity ? undefined : shortest;
}
