/** VMs that nobody and nothing uses: found, and done with as was asked. */
import { listStreams } from "../../agent/commands.ts";
import { messageOf } from "../../model/errors.ts";
import { cpuOf } from "../../util/process/process-use.ts";
import type { Entry } from "../records/entry.ts";
import type { Sandboxes } from "../sandboxes.ts";

/** Milliseconds between looks. */
const LOOK_MS = 1000;
/** Share of a processor below which a guest does nothing: an idle one needs a third of a percent. */
const CPU_FLOOR = 0.05;

/** Looks after the idle limits of all VMs. */
export class IdleWatch {
  private readonly sandboxes: Sandboxes;
  private readonly timer: NodeJS.Timeout;
  private readonly acting = new Set<Entry>();

  constructor(sandboxes: Sandboxes) {
    this.sandboxes = sandboxes;
    this.timer = setInterval(() => {
      for (const entry of sandboxes.entries.values()) void this.look(entry);
    }, LOOK_MS);
    this.timer.unref();
  }

  /** Look at one VM, and act when it has been idle for long enough. */
  private async look(entry: Entry): Promise<void> {
    const { record } = entry;
    if (record.idle === undefined || record.status !== "running" || this.acting.has(entry)) return;
    this.acting.add(entry);
    try {
      const now = Date.now();
      entry.usedAt ??= now;
      if (this.works(entry, now)) entry.usedAt = now;
      if (now - entry.usedAt < record.idle.ms) return;
      // The last question, because it is put to the guest itself.
      if (await this.hasStreams(entry)) {
        entry.usedAt = Date.now();
        return;
      }
      const { action } = record.idle;
      this.sandboxes.log.info(`${record.id}: idle for ${record.idle.ms} ms; ${action}`);
      await this.sandboxes.end(entry, action);
      delete entry.usedAt;
    } catch (error) {
      entry.usedAt = Date.now();
      this.sandboxes.log.error(`${record.id}: its idle limit: ${messageOf(error)}`);
    } finally {
      this.acting.delete(entry);
    }
  }

  /** Whether the guest has used its processors since the last look. */
  private works(entry: Entry, now: number): boolean {
    const pid = entry.record.process?.pid;
    const ms = pid === undefined ? undefined : cpuOf(pid);
    if (ms === undefined) return false;
    const before = entry.cpuSeen;
    entry.cpuSeen = { at: now, ms };
    if (before === undefined || ms < before.ms || now === before.at) return false;
    return (ms - before.ms) / (now - before.at) > CPU_FLOOR;
  }

  /** Whether a command runs, or somebody is attached to anything. */
  private async hasStreams(entry: Entry): Promise<boolean> {
    if (entry.guest === undefined) return true;
    const streams = await listStreams(entry.guest.channel, AbortSignal.timeout(10_000));
    return streams.some(({ running, attached }) => running || attached > 0);
  }

  /** Stop looking. */
  close(): void {
    clearInterval(this.timer);
  }
}
