/** The guest's work, held while its memory and disks are taken, and let go once it is mended. */
import type { AgentChannel } from "../agent/channel.ts";
import type { GuestConfig } from "../agent/config.ts";
import { VmsanError } from "../model/errors.ts";
import { formatDuration } from "../util/units.ts";
import type { RunningVm } from "../vmm/driver.ts";

/** The wall clock is corrected when it is off by more than this, in nanoseconds. */
const CLOCK_SLACK_NS = 2_000_000n;
/** Longest time for a guest to write back and stand still: gigabytes, emulated, on a busy host. */
const FREEZE_LIMIT_MS = 5 * 60_000;
/** Longest time for a guest's work to go on: nothing is written for that, on however busy a host. */
const THAW_LIMIT_MS = 2 * 60_000;
/** Looks at the guest's clock, and the milliseconds for a look that make another one needless. */
const LOOKS = 4;
const QUICK_MS = 10;
/** A look is wrong by half of its time at most: on a loaded host there are more, until one is as quick as this. */
const MAX_LOOKS = 20;
const FAIR_MS = 50;

/** A VM that runs, with the way to its agent. */
export interface LiveVm {
  running: RunningVm;
  channel: AgentChannel;
}

/**
 * Have the agent write everything back and hold the guest's work.
 * @param disk also hold the file system: the disk is then complete without the memory
 */
export async function freeze(vm: LiveVm, disk: boolean, signal: AbortSignal): Promise<void> {
  const limit = AbortSignal.timeout(FREEZE_LIMIT_MS);
  const both = AbortSignal.any([signal, limit]);
  try {
    const body = { disk };
    await vm.channel.request("POST", "/v1/freeze", { body, signal: both, idempotent: true });
  } catch (error) {
    signal.throwIfAborted();
    if (limit.aborted) throw restless(error);
    throw error;
  }
}

/** What has to be written back first is not. */
function restless(cause: unknown): VmsanError {
  return new VmsanError(
    {
      code: "ERR_TIMEOUT_AGENT",
      message: `The guest did not stand still within ${formatDuration(FREEZE_LIMIT_MS)}`,
      why: "What it has not written yet is written first, and a disk or a shared directory of the host does not take it.",
      fix: "Look at the host's disk, and at what serves the directory (a network file system?); the VM goes on.",
    },
    cause,
  );
}

/** Let the guest's work go on. @param limitMs until it is taken for a guest that never answers */
export async function thaw(vm: LiveVm, adjustNs = 0n, limitMs = THAW_LIMIT_MS): Promise<void> {
  // Whoever waits has the VM's turn: without a limit a guest could keep its own end from coming.
  const signal = AbortSignal.timeout(limitMs);
  try {
    await vm.channel.request("POST", "/v1/thaw", {
      body: adjustNs === 0n ? {} : { adjustNs: String(adjustNs) },
      idempotent: adjustNs === 0n,
      signal,
    });
  } catch (error) {
    throw signal.aborted ? stiff(error, limitMs) : error;
  }
}

/** It does not say that it goes on. */
function stiff(cause: unknown, limitMs: number): VmsanError {
  return new VmsanError(
    {
      code: "ERR_TIMEOUT_AGENT",
      message: `The guest did not go on within ${formatDuration(limitMs)}`,
      why: "Its agent does not answer.",
      fix: "See the VM's console (vmsan logs ID), or remove it (vmsan rm -f ID).",
    },
    cause,
  );
}

/** How far the guest's wall clock is ahead of the host's, in nanoseconds, by the quickest of a few looks. */
async function clockOffset(vm: LiveVm, signal: AbortSignal): Promise<bigint> {
  let best = { tripMs: Number.POSITIVE_INFINITY, offset: 0n };
  const enough = (look: number): boolean =>
    best.tripMs <= QUICK_MS || look >= (best.tripMs <= FAIR_MS ? LOOKS : MAX_LOOKS);
  for (let look = 0; !enough(look); look += 1) {
    const before = Date.now();
    const reply = await vm.channel.request<{ ns?: unknown }>("GET", "/v1/clock", { signal });
    const after = Date.now();
    if (typeof reply.ns !== "string" || !/^\d{1,19}$/.test(reply.ns)) return 0n;
    if (after - before >= best.tripMs) continue;
    // The guest looked at its clock somewhere in between.
    const middle = BigInt(before + after) * 500_000n;
    best = { tripMs: after - before, offset: BigInt(reply.ns) - middle };
  }
  return best.offset;
}

/**
 * Tell a guest that has just come out of a file who it is now, then let its work go on.
 * @param before called when it knows, before its work goes on
 * @returns sentences about what could not be mended, for the log
 */
export async function mend(
  vm: LiveVm,
  config: GuestConfig,
  signal: AbortSignal,
  before: () => Promise<void>,
): Promise<string[]> {
  const { warnings } = await vm.channel.configure(config, signal);
  await before();
  const offset = await clockOffset(vm, signal);
  const far = offset > CLOCK_SLACK_NS || offset < -CLOCK_SLACK_NS;
  await thaw(vm, far ? -offset : 0n);
  return warnings;
}
