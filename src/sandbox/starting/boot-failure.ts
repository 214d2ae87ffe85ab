/** Why a guest did not come up: its console's last lines, in an error. */
import { open, stat } from "node:fs/promises";
import { VmsanError, errnoOf } from "../../model/errors.ts";
import type { VmmExit } from "../../vmm/driver.ts";

const TAIL_BYTES = 8192;
const TAIL_LINES = 15;

/** Printable text of guest output: no escape sequences reach a terminal. */
function printable(text: string): string {
  return (
    text
      // oxlint-disable-next-line no-control-regex -- control characters are what is removed here
      .replaceAll(/\u001B\[[0-9;?]*[A-Za-z]/g, "")
      .replaceAll(/[^\n\t\u0020-\u007E\u00A0-\uFFFF]/g, "")
  );
}

/** How long a console log is: what comes behind it is of the boot that begins now. 0 when there is none. */
export async function consoleLength(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return 0;
    throw error;
  }
}

/**
 * The last lines of a console log; empty when there is none.
 * @param from what lies before this offset is left out, as of an earlier boot; one behind the end: the log was cut
 */
export async function consoleTail(path: string, from = 0): Promise<string[]> {
  let handle;
  try {
    handle = await open(path, "r");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
  try {
    const { size } = await handle.stat();
    const start = Math.max(from > size ? 0 : from, size - TAIL_BYTES);
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(TAIL_BYTES), 0, TAIL_BYTES, start);
    return printable(buffer.toString("utf8", 0, bytesRead))
      .split("\n")
      .map((line) => line.trimEnd())
      .filter((line) => line !== "")
      .slice(-TAIL_LINES);
  } finally {
    await handle.close();
  }
}

/** The agent's own last words, when it could not go on: `vmsan-agent: fatal: CODE: message`. */
export function agentFatal(lines: readonly string[]): string | undefined {
  for (const line of lines) {
    const match = /vmsan-agent: fatal: (.+)$/.exec(line);
    if (match?.[1] !== undefined) return match[1];
  }
  return undefined;
}

const FIX =
  "Check --kernel and --rootfs if you gave them; `vmsan doctor` checks the host. VMSAN_BOOT_TIMEOUT (seconds) gives a slow host more time.";
const DISK_FIX =
  "If you gave --rootfs, check that file (e2fsck -n). Else the image's cached disk is damaged: `vmsan image prune --all` removes it once no VM uses it, and it is made anew.";

/** The agent's code for a kernel that has found no timer. */
const NO_TIMER = "ERR_AGENT_BOOT_TIMER";

/**
 * How often a boot that failed so is tried in all. Under emulation on a busy host a kernel now and then hangs before its
 * first line of output: once is bad luck, twice is a fault. That it finds no timer is told early, and the busier
 * the host, the likelier it comes again.
 */
export function attemptsFor(error: unknown): number {
  if (!(error instanceof VmsanError)) return 1;
  if (error.details?.["agent"] === NO_TIMER) return 4;
  return error.code === "ERR_TIMEOUT_AGENT" ? 2 : 1;
}

/** What was waited for, and how it ended. */
export interface Unanswered {
  /** Where its boot begins in the console log. */
  from: number;
  /** Behind "The guest agent": what it did not do in time. */
  late: string;
  /** Behind "The VMM ended": before what. */
  early: string;
  /** How the VMM ended, when it did. */
  exit: VmmExit | undefined;
  /** How long it was waited for. */
  waitedMs: number;
  cause?: unknown;
}

/** The error for a guest that did not come up. */
export async function bootFailure(
  vmId: string,
  consolePath: string,
  { from, late, early, exit, waitedMs, cause }: Unanswered,
): Promise<VmsanError> {
  const lines = await consoleTail(consolePath, from);
  const fatal = agentFatal(lines);
  const tail =
    lines.length === 0 ? "The console is empty." : `Console, last lines:\n  ${lines.join("\n  ")}`;
  let what: string;
  if (fatal !== undefined) what = `The guest agent gave up: ${fatal}.`;
  else if (exit !== undefined) {
    what = `The VMM ended with ${exit.signal ?? `status ${exit.code ?? "unknown"}`} ${early}.`;
  } else what = `The guest agent ${late} within ${Math.round(waitedMs / 1000)} s.`;
  return new VmsanError(
    {
      code: exit === undefined && fatal === undefined ? "ERR_TIMEOUT_AGENT" : "ERR_VM_BOOT",
      message: `${vmId} did not boot`,
      why: `${what} ${tail}`,
      fix: fatal?.startsWith("ERR_AGENT_BOOT_DISK") === true ? DISK_FIX : FIX,
      details: { console: lines, ...(fatal !== undefined && { agent: fatal.split(":")[0] }) },
    },
    cause,
  );
}
