/**
 * What this node remembers of its pods: a journal of their documents, and a directory of logs each. All documents are one file, to which the
 * newest of each is added: to make a file takes a hundred times what a line takes, and a node has hundreds of pods. Read and written
 * synchronously: a line takes microseconds, a turn of the thread pool ten times that.
 */
import {
  appendFileSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf } from "../../../model/errors.ts";
import { podLineSchema } from "../../../schema/pod.ts";
import type { PodRecord } from "../../../schema/pod.ts";
import { validate } from "../../../schema/validate.ts";
import type { Log } from "../../../util/log.ts";

/** So many lines beyond those that count may be in the journal before it is written anew. */
const SPARE_LINES = 1000;

/** The documents of one node directory. */
export class PodStore {
  private readonly journal: string;
  private readonly logs: string;
  /** The newest line of each pod, by UID. */
  private readonly newest = new Map<string, string>();
  private lines = 0;
  /** The last line may have no end. */
  private torn = true;
  private log: Log | undefined;

  /** @param directory absolute; this node's own */
  constructor(directory: string) {
    this.journal = join(directory, "pods.jsonl");
    this.logs = join(directory, "logs");
  }

  /** Directory of the log of one run of a pod's container; it may not be there. */
  logDir(uid: string, restarts: number): string {
    return join(this.logs, uid, String(restarts));
  }

  /** All that can be read, by UID; what cannot is told, and forgotten: the VM and the API server know the rest. */
  load(log: Log): Map<string, PodRecord> {
    mkdirSync(this.logs, { recursive: true, mode: 0o700 });
    const records = new Map<string, PodRecord>();
    for (const text of this.read().split("\n")) {
      if (text === "") continue;
      try {
        const line = validate(podLineSchema, JSON.parse(text), this.journal, "ERR_NODE_STORE");
        if ("gone" in line) records.delete(line.gone);
        else records.set(line.uid, line);
      } catch (error) {
        // Half a line, which somebody who was killed has left, is an older document's.
        log.error(`cannot read a line of ${this.journal}`, error);
      }
    }
    this.newest.clear();
    for (const record of records.values()) this.newest.set(record.uid, JSON.stringify(record));
    this.log = log;
    this.compact();
    return records;
  }

  private read(): string {
    try {
      return readFileSync(this.journal, "utf8");
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return "";
      throw error;
    }
  }

  /** Have in the journal what counts alone: all of it, or as it was. Where that cannot be, it grows, and it is tried again later. */
  private compact(): void {
    // Of one name: what somebody has left who was killed is written over.
    const aside = `${this.journal}.new`;
    const text = [...this.newest.values()].map((line) => `${line}\n`).join("");
    this.lines = this.newest.size;
    try {
      writeFileSync(aside, text, { mode: 0o600 });
      renameSync(aside, this.journal);
      this.torn = false;
    } catch (error) {
      this.log?.error(`cannot write ${this.journal} anew`, error);
      rmSync(aside, { force: true });
    }
  }

  private add(line: string): void {
    const before = this.torn ? "\n" : "";
    this.torn = true;
    appendFileSync(this.journal, `${before}${line}\n`, { mode: 0o600 });
    this.torn = false;
    this.lines += 1;
    if (this.lines > 2 * this.newest.size + SPARE_LINES) this.compact();
  }

  /** Remember one as it is now. After a power cut it may be as it was, as its VM runs no more either. */
  save(record: PodRecord): void {
    const line = JSON.stringify(record);
    this.newest.set(record.uid, line);
    this.add(line);
  }

  /** Remove the log of a run that nobody can ask for any more. */
  async forgetRun(uid: string, restarts: number): Promise<void> {
    await rm(this.logDir(uid, restarts), { recursive: true, force: true });
  }

  /** Forget one, and what it has printed. */
  async remove(uid: string): Promise<void> {
    if (this.newest.delete(uid)) this.add(JSON.stringify({ gone: uid }));
    await rm(join(this.logs, uid), { recursive: true, force: true });
  }

  /** Forget what belongs to no pod any more. */
  async sweep(known: (uid: string) => boolean): Promise<void> {
    for (const uid of new Set([...this.newest.keys(), ...(await readdir(this.logs))])) {
      if (!known(uid)) await this.remove(uid);
    }
  }
}
