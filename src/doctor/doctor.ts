/**
 * doctor/: says what this host can do and what is in the way. Takes the layout of a VMSAN_DIR,
 * gives one finding a check, each with its remedy; `fix` carries out those that are safe.
 * Every check runs at the same time as all others, within a time limit, and cannot fail another.
 */
import type { CheckResult, DoctorReport } from "../model/doctor.ts";
import { messageOf } from "../model/errors.ts";
import { abortable } from "../util/flow/abortable.ts";
import type { Layout } from "../util/paths.ts";
import type { Check, DoctorContext } from "./check.ts";
import { artefactChecks } from "./checks-artefacts.ts";
import { machineChecks } from "./checks-machine.ts";
import { networkChecks } from "./checks-network.ts";
import { vmmChecks } from "./checks-vmm.ts";

/** What {@link runDoctor} takes. */
export interface DoctorOptions {
  layout: Layout;
  signal?: AbortSignal;
  /** Carry out the remedies that are safe. */
  fix?: boolean;
  daemon?: DoctorContext["daemon"];
  /** Called as each check ends. */
  onResult?: (result: CheckResult) => void;
  /** Milliseconds for each check; default 45 s (a probe of KVM boots a VM). */
  timeoutMs?: number;
  /** Other checks than all. */
  checks?: readonly Check[];
}

/** All checks in the order of the report. */
export const allChecks: readonly Check[] = [
  ...machineChecks,
  ...vmmChecks,
  ...networkChecks,
  ...artefactChecks,
];

/** Run one check to a result, whatever it does. */
async function runCheck(check: Check, options: DoctorOptions): Promise<CheckResult> {
  const start = performance.now();
  const timeoutMs = options.timeoutMs ?? 45_000;
  const limit = AbortSignal.timeout(timeoutMs);
  const signal = options.signal === undefined ? limit : AbortSignal.any([options.signal, limit]);
  let result: Omit<CheckResult, "durationMs">;
  try {
    const context: DoctorContext = {
      layout: options.layout,
      signal,
      ...(options.daemon === undefined ? {} : { daemon: options.daemon }),
    };
    const { repair, ...finding } = await abortable(check.run(context), signal);
    result = { name: check.name, ...finding };
    if (options.fix === true && repair !== undefined) {
      result.fixed = await abortable(repair(signal), signal);
      result.status = "ok";
    }
  } catch (error) {
    options.signal?.throwIfAborted();
    const why = limit.aborted ? `no answer within ${timeoutMs / 1000} s` : messageOf(error);
    result = { name: check.name, status: "fail", detail: `The check itself failed: ${why}.` };
  }
  const done = { ...result, durationMs: Math.round(performance.now() - start) };
  options.onResult?.(done);
  return done;
}

/**
 * Run all checks at once.
 * @returns results in the order of {@link allChecks}
 */
export async function runDoctor(options: DoctorOptions): Promise<DoctorReport> {
  const checks = options.checks ?? allChecks;
  const results = await Promise.all(checks.map((check) => runCheck(check, options)));
  return { ok: results.every(({ status }) => status !== "fail"), checks: results };
}
