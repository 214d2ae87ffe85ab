/**
 * What this node remembers of its pods: a document and a directory of logs each. Documents are read and written synchronously: each takes
 * microseconds, a turn of the thread pool ten times that, and a node has hundreds of them.
 */
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { podRecordSchema } from "../../../schema/pod.ts";
import type { PodRecord } from "../../../schema/pod.ts";
import { validate } from "../../../schema/validate.ts";
import { temporarySibling } from "../../../util/atomic.ts";
import type { Log } from "../../../util/log.ts";

/** The documents of one node directory. */
export class PodStore {
  private readonly records: string;
  private readonly logs: string;

  /** @param directory absolute; this node's own */
  constructor(directory: string) {
    this.records = join(directory, "pods");
    this.logs = join(directory, "logs");
  }

  /** Directory of the log of one run of a pod's container. */
  logDir(uid: string, restarts: number): string {
    return join(this.logs, uid, String(restarts));
  }

  /** All that can be read, by UID; what cannot is told, and removed: the VM and the API server know the rest. */
  async load(log: Log): Promise<Map<string, PodRecord>> {
    await mkdir(this.records, { recursive: true, mode: 0o700 });
    await mkdir(this.logs, { recursive: true, mode: 0o700 });
    const records = new Map<string, PodRecord>();
    for (const name of await readdir(this.records)) {
      const path = join(this.records, name);
      try {
        const value: unknown = JSON.parse(readFileSync(path, "utf8"));
        const record = validate(podRecordSchema, value, `file ${path}`, "ERR_NODE_STORE");
        if (`${record.uid}.json` === name) records.set(record.uid, record);
        else await rm(path, { force: true });
      } catch (error) {
        log.error(`cannot read ${path}`, error);
        await rm(path, { force: true });
      }
    }
    return records;
  }

  /** Write one: whole or not at all. After a power cut it may be the old one, as its VM runs no more either. */
  save(record: PodRecord): void {
    const path = join(this.records, `${record.uid}.json`);
    const aside = temporarySibling(path);
    writeFileSync(aside, `${JSON.stringify(record)}\n`, { mode: 0o600 });
    renameSync(aside, path);
  }

  /** Remove the log of a run that nobody can ask for any more. */
  async forgetRun(uid: string, restarts: number): Promise<void> {
    await rm(this.logDir(uid, restarts), { recursive: true, force: true });
  }

  /** Forget one, and what it has printed. */
  async remove(uid: string): Promise<void> {
    await rm(join(this.logs, uid), { recursive: true, force: true });
    await rm(join(this.records, `${uid}.json`), { force: true });
  }

  /** Forget what belongs to no pod any more. */
  async sweep(known: (uid: string) => boolean): Promise<void> {
    for (const uid of await readdir(this.logs)) if (!known(uid)) await this.remove(uid);
    for (const name of await readdir(this.records)) {
      const uid = name.replace(/\.json$/, "");
      if (!known(uid)) await this.remove(uid);
    }
  }
}
