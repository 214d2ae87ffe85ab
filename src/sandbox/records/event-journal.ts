/**
 * Events on disk, so that the next daemon goes on where one that was killed stood: each is written before it is told.
 * A line an event, in one file that is written anew once it is twice as long as what is kept. It holds for one boot of
 * the host: what a power cut may have torn out of it is not trusted.
 */
import {
  appendFileSync,
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname } from "node:path";
import { errnoOf } from "../../model/errors.ts";
import type { VmsanEvent } from "../../model/event.ts";
import { parseJournalLine } from "../../schema/event.ts";
import { temporarySibling } from "../../util/atomic.ts";
import { bootId } from "../../util/process-identity.ts";
import type { EventLog } from "./entry.ts";

/** The events of one VMSAN_DIR. */
export class EventJournal {
  /** What was found, without gaps, at most `capacity`. */
  readonly found: VmsanEvent[];
  private readonly path: string;
  private readonly capacity: number;
  private readonly log: EventLog;
  /** Of the open file; undefined once it cannot be written. */
  private descriptor: number | undefined;
  private lines = 0;

  /**
   * @param path of the file, which is written by this process alone
   * @param capacity events that are kept at least
   */
  constructor(path: string, capacity: number, log: EventLog) {
    this.path = path;
    this.capacity = capacity;
    this.log = log;
    this.found = this.attempt(() => readEvents(path).slice(-capacity)) ?? [];
    // Anew: a line that was cut off in its middle must not be written on to.
    this.attempt(() => this.rewrite(this.found));
  }

  /**
   * Write an event down.
   * @param kept those that are kept, this one included, for when the file is written anew
   */
  append(event: VmsanEvent, kept: () => VmsanEvent[]): void {
    this.attempt(() => {
      if (this.descriptor === undefined) return;
      if (this.lines >= 2 * this.capacity) this.rewrite(kept().slice(-this.capacity));
      else {
        appendFileSync(this.descriptor, `${JSON.stringify(event)}\n`);
        this.lines += 1;
      }
    });
  }

  /** Write no more. */
  close(): void {
    if (this.descriptor !== undefined) closeSync(this.descriptor);
    this.descriptor = undefined;
  }

  private rewrite(events: readonly VmsanEvent[]): void {
    const aside = temporarySibling(this.path);
    const head = { version: 1, bootId: bootId() };
    mkdirSync(dirname(this.path), { recursive: true, mode: 0o700 });
    try {
      const text = [head, ...events].map((line) => `${JSON.stringify(line)}\n`).join("");
      writeFileSync(aside, text, { mode: 0o600, flag: "wx" });
      const descriptor = openSync(aside, "a");
      renameSync(aside, this.path);
      this.close();
      this.descriptor = descriptor;
      this.lines = events.length;
    } catch (error) {
      rmSync(aside, { force: true });
      throw error;
    }
  }

  /** What fails, a full disk, ends the journal: numbers with a hole would tell the next daemon something wrong. */
  private attempt<T>(work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      this.log.error(`${this.path}: events cannot be kept there`, error);
      this.close();
      try {
        rmSync(this.path, { force: true });
      } catch {
        // Where nothing can be removed nothing can be read either.
      }
      return undefined;
    }
  }
}

/** The events of a file of this boot, from the last gap in their numbers on. */
function readEvents(path: string): VmsanEvent[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    return [];
  }
  const [head = "", ...lines] = text.split("\n");
  if (parseJournalLine(head)?.bootId !== bootId()) return [];
  let events: VmsanEvent[] = [];
  for (const line of lines) {
    const event = parseJournalLine(line)?.event;
    if (event === undefined) continue;
    if (event.seq !== (events.at(-1)?.seq ?? 0) + 1) events = [];
    events.push(event);
  }
  return events;
}
