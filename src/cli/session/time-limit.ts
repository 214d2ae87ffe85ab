/** A VM's time limit (`--timeout`) as those who work in it meet it: put off, or explained. */
import type { Vm } from "../../client/vm.ts";
import { asVmsanError } from "../../model/errors.ts";
import { formatDuration } from "../../util/units.ts";
import type { Output } from "../output.ts";

/** Longest time between two renewals, in milliseconds. */
const RENEW_MS = 5 * 60_000;

/**
 * Renew a VM's time limit now and for as long as somebody works in it.
 * @returns a function that leaves the limit alone again
 */
export function renewTimeLimit(vm: Vm, output: Output): () => void {
  const { timeoutMs } = vm.view;
  if (timeoutMs === undefined) return () => undefined;
  const renew = (): void => {
    vm.extendTimeout().catch((error: unknown) => {
      // The session goes on; if the VM ends under it, its end is explained.
      output.detail(`cannot renew the time limit: ${asVmsanError(error, "").message}`);
    });
  };
  renew();
  // Thrice in the limit, so that one renewal may come late.
  const timer = setInterval(renew, Math.min(RENEW_MS, Math.ceil(timeoutMs / 3)));
  timer.unref();
  return () => clearInterval(timer);
}

/** What to tell those whose command ended because the VM's time was up; undefined if it was not. */
export async function timeLimitPassed(vm: Vm): Promise<string | undefined> {
  const { timeoutAt, timeoutMs } = vm.view;
  if (timeoutAt === undefined || timeoutMs === undefined) return undefined;
  if (Date.now() < Date.parse(timeoutAt)) return undefined;
  let reason: string | undefined;
  try {
    reason = (await vm.refresh()).stopReason;
  } catch {
    // It was removed meanwhile, or the daemon cannot be asked: then there is nothing to add.
    return undefined;
  }
  if (reason !== "time-limit") return undefined;
  return (
    `vmsan: ${vm.view.name ?? vm.id} was stopped: its time limit of ${formatDuration(timeoutMs)} has passed (create --timeout)\n` +
    `  fix: start it again (vmsan start ${vm.view.name ?? vm.id}), or create it with a longer --timeout or none; exec -i and -t renew the limit`
  );
}
