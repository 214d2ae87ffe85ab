/** What a container wants done right after its start and right before its end. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Vm } from "../../../client/vm.ts";
import type { PodContainer, PodHook } from "../../../schema/pod.ts";
import { lookAt } from "./probe.ts";
import type { ProbeFailure } from "./probe.ts";
import { LONGEST_MS } from "../life/timers.ts";

/** Longest that a hook may take which nothing else ends, in seconds. */
const LONGEST_SECONDS = 86_400;

/**
 * Carry one out.
 * @param seconds that it may take; default as long as it likes
 * @returns why it has failed; undefined: it has not
 * @throws by its signal alone
 */
export async function runHook(
  vm: Vm,
  container: PodContainer,
  hook: PodHook,
  signal: AbortSignal,
  seconds = LONGEST_SECONDS,
): Promise<ProbeFailure> {
  if (hook.sleep) {
    const ms = Math.min(Math.min(hook.sleep.seconds, seconds) * 1000, LONGEST_MS);
    await sleep(ms, undefined, { signal, ref: false });
    return undefined;
  }
  return await lookAt(vm, container, { ...hook, timeoutSeconds: seconds }, signal);
}
