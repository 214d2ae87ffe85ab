/** Where templates are kept: each complete or absent, no more than may be, none that nothing fits any more. */
import { createHash } from "node:crypto";
import { access, mkdir, readFile, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import type { Template } from "../../model/snapshot.ts";
import type { StoredFile } from "../../model/vm.ts";
import { parseTemplate } from "../../schema/state.ts";
import { allocatedBytes, describeFile, stampOf, whatIsDamaged } from "../../snapshots/files.ts";
import { memoryPaths } from "../../snapshots/store.ts";
import { syncDirectory, syncFile, writeFileAtomic } from "../../util/atomic.ts";
import { freeBytes } from "../../util/files/free-bytes.ts";

const DOCUMENT = "template.json";
/** The record of the VM that a template is being made of, in its directory. */
export const DRAFT_RECORD = "vm.json";
const KEY = /^(booted-)?[0-9a-f]{32}$/;
const DRAFT = /^\.new-(vm-[0-9a-f]{8})$/;
/** Bytes that templates may take, unless VMSAN_TEMPLATE_BYTES says otherwise. */
const MAX_BYTES = 2 * 2 ** 30;

/** A template that a VM would start from. */
export interface Wish {
  key: string;
  about: Omit<Template, "files" | "stamp" | "disk">;
}

/** A short name that differs where anything differs. */
export function nameOf(parts: unknown): string {
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 32);
}

/** The directory of templates. Used by one process at a time (the daemon). */
export class TemplateShelf {
  private readonly dir: string;

  /** @param dir its absolute path */
  constructor(dir: string) {
    this.dir = dir;
  }

  private async names(): Promise<string[]> {
    try {
      return await readdir(this.dir);
    } catch {
      // ENOENT: no template has been made yet.
      return [];
    }
  }

  /** Where a template is, or would be. */
  place(key: string): string {
    return join(this.dir, key);
  }

  /** An empty directory for the VM that a template is to be made of. */
  async begin(vmId: string): Promise<string> {
    const draft = join(this.dir, `.new-${vmId}`);
    await mkdir(draft, { recursive: true, mode: 0o700 });
    return draft;
  }

  /** Bytes that are free where templates are kept. */
  async room(): Promise<number> {
    await mkdir(this.dir, { recursive: true, mode: 0o700 });
    return await freeBytes(this.dir);
  }

  /** Remove what is left of templates of which a killed daemon was removing the files, and of what cannot be read. */
  async sweep(): Promise<void> {
    for (const key of (await this.names()).filter((name) => KEY.test(name)))
      if ((await this.read(key)) === undefined) await this.drop(key);
  }

  /** Remove all. @returns how many there were */
  async clear(): Promise<number> {
    const keys = (await this.names()).filter((name) => KEY.test(name));
    for (const key of keys) await this.drop(key);
    return keys.length;
  }

  /** Directories of templates that were not finished. */
  async unfinished(): Promise<string[]> {
    return (await this.names()).filter((name) => DRAFT.test(name)).map((name) => this.place(name));
  }

  private async read(key: string): Promise<Template | undefined> {
    try {
      return parseTemplate(JSON.parse(await readFile(join(this.place(key), DOCUMENT), "utf8")));
    } catch {
      // ENOENT: there is none; anything else: it is of no use.
      return undefined;
    }
  }

  /** The template of a key, whole, and used now; undefined when there is none. */
  async find(key: string): Promise<Template | undefined> {
    const place = this.place(key);
    const path = join(place, DOCUMENT);
    const found = await this.read(key);
    if (found === undefined) return undefined;
    const isWhole = (await whatIsDamaged(place, found.files)) === undefined;
    if (!isWhole || !(await this.isUnwritten(key, found))) {
      await this.drop(key);
      return undefined;
    }
    const now = new Date();
    try {
      await utimes(path, now, now);
    } catch {
      // ENOENT: somebody has dropped it meanwhile.
      return undefined;
    }
    return found;
  }

  /** Whether the template of a key is still that one, and as it was. */
  async holds(key: string, { stamp }: Template): Promise<boolean> {
    const now = await this.read(key);
    return now?.stamp === stamp && (await this.isUnwritten(key, now));
  }

  /** Whether nobody has written to a template's memory since it was kept. */
  private async isUnwritten(key: string, { stamp }: Template): Promise<boolean> {
    try {
      return (await stampOf(memoryPaths(this.place(key)).memory)) === stamp;
    } catch {
      // ENOENT: somebody has dropped it meanwhile.
      return false;
    }
  }

  /** Remove a template. VMs that were made of it keep what they share with it. */
  async drop(key: string): Promise<void> {
    await rm(this.place(key), { recursive: true, force: true });
  }

  /**
   * Put a finished template in its place at one stroke, and remove what it supersedes.
   * @param draft its directory
   * @param names its files; others in the directory go
   */
  async keep(
    draft: string,
    key: string,
    names: readonly string[],
    about: Omit<Template, "files" | "stamp">,
  ): Promise<void> {
    const files: StoredFile[] = [];
    for (const name of await readdir(draft)) {
      const path = join(draft, name);
      if (!names.includes(name)) {
        await rm(path, { recursive: true, force: true });
        continue;
      }
      await syncFile(path);
      files.push(await describeFile(draft, name));
    }
    const stamp = await stampOf(memoryPaths(draft).memory);
    await writeFileAtomic(join(draft, DOCUMENT), JSON.stringify({ ...about, files, stamp }));
    await this.drop(key);
    await rename(draft, this.place(key));
    await syncDirectory(this.dir);
    await this.bound(key, about);
  }

  /** Remove templates that nothing fits any more, and the least recently used of too many. */
  private async bound(
    kept: string,
    { machine, slot }: Omit<Template, "files" | "stamp">,
  ): Promise<void> {
    const given = Number(process.env["VMSAN_TEMPLATE_BYTES"]);
    let left = Number.isFinite(given) && given > 0 ? given : MAX_BYTES;
    const found: { key: string; bytes: number; used: number }[] = [];
    for (const key of (await this.names()).filter((one) => KEY.test(one))) {
      const place = this.place(key);
      let bytes = 0;
      for (const file of await readdir(place)) bytes += await allocatedBytes(join(place, file));
      const template = await this.describe(place);
      const fits =
        template !== undefined &&
        JSON.stringify(template.machine) === JSON.stringify(machine) &&
        (template.slot !== slot || key === kept) &&
        (await areThere(template.needs));
      const used = key === kept ? Number.POSITIVE_INFINITY : (template?.used ?? 0);
      if (fits) found.push({ key, bytes, used });
      else await this.drop(key);
    }
    for (const { key, bytes } of found.toSorted((a, b) => b.used - a.used)) {
      left -= bytes;
      if (left < 0 && key !== kept) await this.drop(key);
    }
  }

  private async describe(place: string): Promise<(Template & { used: number }) | undefined> {
    const path = join(place, DOCUMENT);
    try {
      const { mtimeMs } = await stat(path);
      return { ...parseTemplate(JSON.parse(await readFile(path, "utf8"))), used: mtimeMs };
    } catch {
      // Another version's, or damaged: of no use.
      return undefined;
    }
  }
}

/** Whether all of these files are there. */
async function areThere(paths: readonly string[]): Promise<boolean> {
  const all = await Promise.all(
    paths.map((path) =>
      access(path).then(
        () => true,
        () => false,
      ),
    ),
  );
  return all.every(Boolean);
}
