/** The memory of a VM that sleeps: files in a directory of their own, which its record names. */
import { randomBytes } from "node:crypto";
import { mkdir, readdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { VmsanError } from "../../model/errors.ts";
import type { StoredFile, VmRecord } from "../../model/vm.ts";
import { removeUnused } from "../../snapshots/disks.ts";
import { describeFile, whatIsDamaged } from "../../snapshots/files.ts";
import { readMemoryImage, type MemoryImage } from "../../snapshots/store.ts";
import { syncFile } from "../../util/atomic.ts";
import { bootId } from "../../util/process-identity.ts";

const NAME = /^memory-[0-9a-f]{8}$/;

/** What is noted of a sleeping VM. */
type Asleep = NonNullable<VmRecord["suspended"]>;

/** An empty directory for memory, which is nobody's until a record names it. @returns its path */
export async function makeMemoryDir({ spec }: VmRecord): Promise<string> {
  const dir = join(spec.dir, `memory-${randomBytes(4).toString("hex")}`);
  await mkdir(dir, { mode: 0o700 });
  return dir;
}

/** What a record says of the memory in a directory. */
export async function describeMemory(dir: string): Promise<{ dir: string; files: StoredFile[] }> {
  const names = (await readdir(dir)).toSorted();
  const files = await Promise.all(names.map(async (name) => await describeFile(dir, name)));
  return { dir: basename(dir), files };
}

/** Make sure that a sleeping VM's memory survives a power cut, and note that it does. */
export async function syncMemory(record: VmRecord): Promise<void> {
  const { suspended, spec } = record;
  if (suspended?.bootId === undefined || suspended.bootId !== bootId()) return;
  const dir = join(spec.dir, suspended.dir);
  for (const { name } of suspended.files) await syncFile(join(dir, name));
  delete suspended.bootId;
}

/**
 * A sleeping VM's memory, looked at.
 * @param fix what its user can do without it
 * @throws ERR_SNAPSHOT_DAMAGED
 */
export async function readMemory(
  { id, spec, suspended }: VmRecord,
  fix: string,
): Promise<{ image: MemoryImage; asleep: Asleep }> {
  let why: string | undefined = "Nothing is known of its memory.";
  if (suspended !== undefined) {
    const dir = join(spec.dir, suspended.dir);
    const isLost = suspended.bootId !== undefined && suspended.bootId !== bootId();
    if (isLost) why = "Its memory was not written back before the host went down.";
    else why = await whatIsDamaged(dir, suspended.files);
    if (why === undefined) return { image: await readMemoryImage(dir), asleep: suspended };
  }
  throw new VmsanError({
    code: "ERR_SNAPSHOT_DAMAGED",
    message: `Cannot wake ${id}`,
    why,
    fix,
  });
}

/** Remove memory and layers of disks in a VM's directory that its record does not name. */
export async function tidy({ spec, suspended }: VmRecord): Promise<void> {
  for (const name of await readdir(spec.dir)) {
    if (!NAME.test(name) || name === suspended?.dir) continue;
    await rm(join(spec.dir, name), { recursive: true, force: true });
  }
  await removeUnused(spec.dir, spec.disks);
}
