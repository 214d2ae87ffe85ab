/** Changes as `image diff` shows them: as Docker does, added, changed and deleted names. */
import { textOfBytes } from "../util/byte-text.ts";
import type { DiffEntry } from "../model/api/images.ts";
import type { Ext4Reader } from "../ext4/ext4.ts";
import { changesOf, differs } from "./overlay.ts";
import type { Change } from "./overlay.ts";

/** The image's directory at a path that is known to be there. */
function inodeAt(base: Ext4Reader, path: string): ReturnType<Ext4Reader["describe"]> {
  let inode = base.describe(2);
  for (const name of path.split("/")) {
    const found = [...base.list(inode)].find((entry) => entry.name === name);
    if (found === undefined) throw new RangeError(`no ${path} in the image`);
    inode = base.describe(found.inode);
  }
  return inode;
}

/** Whether a directory that the image has, too, is shown for its own sake. */
function isOwnChange(change: Extract<Change, { act: "make" }>, base: Ext4Reader): boolean {
  if (change.inode.kind !== "directory") return true;
  const before = inodeAt(base, change.path);
  return before.kind !== "directory" || differs(change.inode, before);
}

/** What a file of the VM's own takes; of several names the first has it. */
function sizeOf({ inode, link }: Extract<Change, { act: "make" }>): Pick<DiffEntry, "sizeBytes"> {
  return inode.kind === "file" && link === undefined ? { sizeBytes: inode.size } : {};
}

/**
 * What a VM has changed, by path. A directory is changed when its mode, owner or attributes are, or
 * something in it.
 */
export function listChanges(upper: Ext4Reader, base: Ext4Reader): DiffEntry[] {
  const entries = new Map<string, Omit<DiffEntry, "path">>();
  const shown = new Set<string>();
  for (const change of changesOf(upper, base)) {
    const path = `/${change.path}`;
    if (change.act === "opaque") {
      shown.add(path);
      continue;
    }
    if (change.act === "remove") entries.set(path, { kind: "deleted" });
    else entries.set(path, { kind: change.known ? "changed" : "added", ...sizeOf(change) });
    const dull = change.act === "make" && change.known && change.path !== "";
    if (dull && !isOwnChange(change, base)) continue;
    for (let at = path; at !== "" && !shown.has(at); at = at.slice(0, at.lastIndexOf("/"))) {
      shown.add(at);
    }
  }
  return [...entries]
    .filter(([path]) => shown.has(path))
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([path, entry]) => ({ path: textOfBytes(Buffer.from(path, "latin1")), ...entry }));
}
