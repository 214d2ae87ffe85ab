/** Waiting for a guest: every wait ends by its limit, with the VMM, and when the agent gives up. */
import { setTimeout as sleep } from "node:timers/promises";
import type { AgentChannel } from "../../agent/channel.ts";
import type { GuestConfig, GuestMount } from "../../agent/config.ts";
import { VmsanError } from "../../model/errors.ts";
import type { VmRecord } from "../../model/vm.ts";
import type { Driver, RunningVm, VmmExit } from "../../vmm/driver.ts";
import { agentFatal, bootFailure, consoleTail } from "./boot-failure.ts";

const CONSOLE_POLL_MS = 500;
/** What copying an image's content into new volumes may take beyond a boot's limit, in milliseconds. */
const FILL_MS = 10 * 60_000;

/** A VM whose agent answers. */
export interface LiveGuest {
  running: RunningVm;
  channel: AgentChannel;
  /** Where its boot, or its way back, begins in the console log ({@link consoleLength}); default: at the beginning. */
  consoleFrom?: number;
}

/** How a wait has ended: with what was waited for, with an error of it, or with the guest. */
type Ended =
  | { how: "done" }
  | { how: "failed"; cause: unknown }
  | { how: "exited"; exit: VmmExit }
  | { how: "fatal" };

/** Ends when the agent says on the console that it cannot go on; it powers off afterwards. */
async function watchConsole(path: string, from: number, signal: AbortSignal): Promise<void> {
  for (;;) {
    await sleep(CONSOLE_POLL_MS, undefined, { signal });
    if (agentFatal(await consoleTail(path, from)) !== undefined) return;
  }
}

/** Do something with a guest for as long as that guest lives. */
async function whileItLives(
  { running, consoleFrom = 0 }: LiveGuest,
  console: string,
  signal: AbortSignal,
  act: (signal: AbortSignal) => Promise<unknown>,
): Promise<Ended> {
  const over = new AbortController();
  const waiting = AbortSignal.any([signal, over.signal]);
  try {
    return await Promise.race([
      act(waiting).then(
        (): Ended => ({ how: "done" }),
        (cause: unknown): Ended => ({ how: "failed", cause }),
      ),
      running.exited.then((exit): Ended => ({ how: "exited", exit })),
      watchConsole(console, consoleFrom, waiting).then(
        (): Ended => ({ how: "fatal" }),
        // Aborted because another contender has won.
        async () => await new Promise<never>(() => undefined),
      ),
    ]);
  } finally {
    over.abort();
  }
}

/** Wait until the agent answers, its VMM ends, or the limit has passed. @returns how long the agent has run, in milliseconds */
export async function awaitAgent(
  record: VmRecord,
  driver: Driver,
  guest: LiveGuest,
  limitMs: number,
  signal: AbortSignal,
): Promise<number> {
  const console = driver.consolePath(record.spec);
  let uptimeMs = 0;
  const ended = await whileItLives(guest, console, signal, async (waiting) => {
    ({ uptimeMs } = await guest.channel.ready({ signal: waiting, timeoutMs: limitMs }));
  });
  signal.throwIfAborted();
  if (ended.how === "done") return uptimeMs;
  const cause = ended.how === "failed" ? ended.cause : undefined;
  // A version mismatch and the like say more than a console does.
  if (cause instanceof VmsanError && cause.code === "ERR_AGENT_VERSION") throw cause;
  const exit = ended.how === "exited" ? ended.exit : undefined;
  const missing = {
    from: guest.consoleFrom ?? 0,
    late: "did not answer",
    early: "before the guest agent answered",
  };
  throw await bootFailure(record.id, console, { ...missing, exit, waitedMs: limitMs, cause });
}

/** What a configuration holds that takes time, in words. */
function contents({ shares = [], mounts = [], network }: GuestConfig): string {
  const count = (number: number, one: string, many: string): string[] =>
    number === 0 ? [] : [`${number} ${number === 1 ? one : many}`];
  const parts = [
    ...count(shares.length, "shared directory", "shared directories"),
    ...count(mounts.length, "mount", "mounts"),
    ...count(network?.interfaces.length ?? 0, "network card", "network cards"),
  ];
  return parts.length === 0 ? "" : ` (${parts.join(", ")})`;
}

/** Whether content of the image may have to be copied first. */
function mayFill({ kind, fill, empty }: GuestMount): boolean {
  return kind === "own" ? empty !== true : fill === true;
}

/** A configuration and how long it may take. */
export interface Configuring {
  config: GuestConfig;
  /** The limit of a boot; it holds for the agent's answer and for this once more. */
  limitMs: number;
  signal: AbortSignal;
}

/**
 * Have a guest configured by `configure`: also what a guest does not answer to, an agent that waits for a
 * file server or for a mount, ends.
 * @throws ERR_TIMEOUT_AGENT at the limit, ERR_VM_BOOT, what the agent says
 */
export async function awaitConfigured(
  record: VmRecord,
  driver: Driver,
  guest: LiveGuest,
  { config, limitMs, signal }: Configuring,
  configure: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const waitedMs = config.mounts?.some(mayFill) === true ? limitMs + FILL_MS : limitMs;
  const limit = AbortSignal.timeout(waitedMs);
  const console = driver.consolePath(record.spec);
  const both = AbortSignal.any([signal, limit]);
  const ended = await whileItLives(guest, console, both, async (waiting) => {
    // Whatever does not heed its signal is left behind.
    const aborted = new Promise<never>((_resolve, reject) => {
      waiting.addEventListener("abort", () => reject(waiting.reason as Error), { once: true });
    });
    await Promise.race([configure(waiting), aborted]);
  });
  signal.throwIfAborted();
  if (ended.how === "done") return;
  const cause = ended.how === "failed" ? ended.cause : undefined;
  if (ended.how === "failed" && !limit.aborted) throw cause;
  const exit = ended.how === "exited" ? ended.exit : undefined;
  const missing = {
    from: guest.consoleFrom ?? 0,
    late: `answered, but was not done with its configuration${contents(config)}`,
    early: "before the guest was configured",
  };
  throw await bootFailure(record.id, console, { ...missing, exit, waitedMs, cause });
}
