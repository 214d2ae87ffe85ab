/**
 * What the gateway remembers of E2B's nouns that VMs and snapshots cannot carry: whose snapshots are, and
 * what they are called. One file, read again whenever it changed; all gateways of a directory share it.
 */
import { mkdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { errnoOf } from "../../../model/errors.ts";
import { validate } from "../../../schema/api.ts";
import { writeFileAtomic } from "../../../util/atomic.ts";
import { withLock } from "../../../util/lock.ts";
import { bareName } from "./pages.ts";

/** Most snapshots. */
const MAX_ENTRIES = 10_000;

const text = z.string().max(4096);

const snapshotSchema = z.object({
  /** ID of the snapshot in the store. */
  id: text,
  project: text,
  name: text.optional(),
  sandboxID: text,
  createdAt: text,
});

const fileSchema = z.object({
  version: z.literal(1),
  snapshots: z.array(snapshotSchema).max(MAX_ENTRIES),
});

/** A snapshot and whose it is. */
export type KnownSnapshot = z.infer<typeof snapshotSchema>;
/** All that is remembered. */
export type Remembered = z.infer<typeof fileSchema>;

/** Whether a snapshot is meant by a name or ID as clients write it. */
export function isSnapshotNamed({ id, name, project }: KnownSnapshot, ref: string): boolean {
  const bare = bareName(ref, project);
  return ref === id || (name !== undefined && bare === name);
}

/** The file of one gateway directory. */
export class E2bStore {
  private readonly path: string;

  /** @param directory absolute path of the gateway's files */
  constructor(directory: string) {
    this.path = join(directory, "e2b.json");
  }

  /** What is remembered now; not to be changed. */
  async load(): Promise<Remembered> {
    let content: string;
    try {
      content = await readFile(this.path, "utf8");
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      return { version: 1, snapshots: [] };
    }
    const what = `file of templates ${this.path}`;
    return validate(fileSchema, JSON.parse(content), what, "ERR_GATEWAY_STORE");
  }

  /** Change it; others wait meanwhile. @param body changes its argument; what it throws leaves all as it was */
  async change<T>(body: (remembered: Remembered) => T): Promise<T> {
    await mkdir(dirname(this.path), { recursive: true, mode: 0o700 });
    return await withLock(`${this.path}.lock`, async () => {
      const remembered = await this.load();
      const result = body(remembered);
      await writeFileAtomic(this.path, `${JSON.stringify(remembered, null, 2)}\n`);
      return result;
    });
  }
}
