/**
 * VMs on a host whose disk is full: a VMM that cannot write holds its guest, loses nothing, and would hold it for
 * ever. Once there is room again, the writes are made.
 */
import { messageOf } from "../model/errors.ts";
import { freeBytes } from "../util/files/free-bytes.ts";
import { formatBytes } from "../util/units.ts";
import type { Sandboxes } from "./sandboxes.ts";

/** Milliseconds between looks. */
const LOOK_MS = 5000;
/** Free bytes below which a write of a guest may have failed by the next look. */
const LOW = 256 * 2 ** 20;

/** Looks after the room that VMs' disks have. */
export class FullDiskWatch {
  private readonly sandboxes: Sandboxes;
  private readonly dir: string;
  private readonly freeIn: (dir: string) => Promise<number>;
  private readonly timer: NodeJS.Timeout;
  /** Whether guests may be held: also those of the daemon before this one. */
  private held = true;
  private low = false;
  private looking = false;

  /**
   * @param dir where VMs' disks lie
   * @param freeIn bytes that are free in a directory
   */
  constructor(sandboxes: Sandboxes, dir: string, freeIn = freeBytes) {
    this.sandboxes = sandboxes;
    this.dir = dir;
    this.freeIn = freeIn;
    this.timer = setInterval(() => void this.look(), LOOK_MS).unref();
  }

  /** Look once: take note of a disk that is nearly full, and give it what templates take; let guests go on when there is room. */
  async look(): Promise<void> {
    if (this.looking) return;
    this.looking = true;
    const { log } = this.sandboxes;
    try {
      const free = await this.freeIn(this.dir);
      if (free < LOW && !this.low)
        log.error(
          `${formatBytes(free)} are free in ${this.dir}: a guest that writes more than that stands still`,
        );
      this.low = free < LOW;
      if (this.low) {
        this.held = true;
        await this.sandboxes.warm?.makeRoom();
      }
      // A little room is enough to try: what finds none is held again.
      if (this.held && free > 0) this.held = !(await this.letGo()) || this.low;
    } catch (error) {
      log.error(`cannot look at the room in ${this.dir}: ${messageOf(error)}`);
    } finally {
      this.looking = false;
    }
  }

  /** Have all that are held try again. @returns whether all could be asked */
  private async letGo(): Promise<boolean> {
    let asked = true;
    for (const { record, guest } of this.sandboxes.entries.values()) {
      if (record.status !== "running" || guest === undefined) continue;
      try {
        const was = await guest.running.retryWrites?.();
        if (was === true)
          this.sandboxes.log.info(
            `${record.id}: it stood still because the disk was full, and goes on`,
          );
      } catch (error) {
        asked = false;
        this.sandboxes.log.error(`${record.id}: whether it stands still: ${messageOf(error)}`);
      }
    }
    return asked;
  }

  /** Look no more. */
  close(): void {
    clearInterval(this.timer);
  }
}
