/** The containers' documents: one file each, replaced atomically. */
import { mkdir, readFile, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { VmsanError } from "../../../model/errors.ts";
import { validate } from "../../../schema/api.ts";
import { containerRecordSchema } from "../../../schema/docker.ts";
import type { ContainerRecord } from "../../../schema/docker.ts";
import { ASIDE, writeFileAtomic } from "../../../util/atomic.ts";
import { Mutex } from "../../../util/flow/mutex.ts";
import type { Log } from "../../../util/log.ts";

/** What is being done with one document. */
interface Turns {
  mutex: Mutex;
  /** A write that has not begun: it writes what the record is by then. */
  next: Promise<void> | undefined;
}

/** The files of all containers of one gateway directory. */
export class ContainerStore {
  private readonly records: string;
  private readonly logs: string;
  /** By ID. One after the other: of two writes at once the older could stand in the end, also of a removed container. */
  private readonly turns = new Map<string, Turns>();

  /** @param directory absolute; this protocol's own */
  constructor(directory: string) {
    this.records = join(directory, "containers");
    this.logs = join(directory, "logs");
  }

  /** Directory of a container's log. */
  logDir(id: string): string {
    return join(this.logs, id);
  }

  /**
   * All that can be read; what cannot is said in the log, and left alone with its VM: `damaged` are their IDs. Whoever
   * calls it has the directory alone: what an engine that was killed was writing is removed.
   */
  async load(log: Log): Promise<{ records: ContainerRecord[]; damaged: string[] }> {
    await mkdir(this.records, { recursive: true, mode: 0o700 });
    await mkdir(this.logs, { recursive: true, mode: 0o700 });
    const records: ContainerRecord[] = [];
    const damaged: string[] = [];
    for (const name of (await readdir(this.records)).toSorted()) {
      if (name.startsWith(ASIDE)) await rm(join(this.records, name), { force: true });
      if (!/^[0-9a-f]{64}\.json$/.test(name)) continue;
      const path = join(this.records, name);
      try {
        const content: unknown = JSON.parse(await readFile(path, "utf8"));
        const record = validate(
          containerRecordSchema,
          content,
          `file ${path}`,
          "ERR_GATEWAY_STORE",
        );
        if (`${record.id}.json` !== name) {
          throw new VmsanError({
            code: "ERR_GATEWAY_STORE",
            message: "It names another container",
          });
        }
        records.push(record);
      } catch (error) {
        log.error(`cannot read ${path}`, error);
        damaged.push(name.replace(/\.json$/, ""));
      }
    }
    return { records, damaged };
  }

  private turnsOf(id: string): Turns {
    const known = this.turns.get(id) ?? { mutex: new Mutex(), next: undefined };
    this.turns.set(id, known);
    return known;
  }

  /** Write one. */
  async save(record: ContainerRecord): Promise<void> {
    const turns = this.turnsOf(record.id);
    turns.next ??= turns.mutex.run(async () => {
      turns.next = undefined;
      await writeFileAtomic(join(this.records, `${record.id}.json`), `${JSON.stringify(record)}\n`);
    });
    await turns.next;
  }

  /** Forget one, and what it has printed. */
  async remove(id: string): Promise<void> {
    await this.turnsOf(id).mutex.run(async () => {
      await rm(this.logDir(id), { recursive: true, force: true });
      await rm(join(this.records, `${id}.json`), { force: true });
    });
    this.turns.delete(id);
  }

  /** Resolves once all that was asked for so far is on disk, or has failed. */
  async settled(): Promise<void> {
    const nothing = async (): Promise<void> => await Promise.resolve();
    await Promise.all([...this.turns.values()].map(async ({ mutex }) => await mutex.run(nothing)));
  }
}
