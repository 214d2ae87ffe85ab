/** Files of a guest as clients of envd see them. */
import { posix } from "node:path";
import { makeDirectory, statFile } from "../../../agent/files.ts";
import type { FileEntry, WatchEvent } from "../../../agent/files.ts";
import { guestErrno } from "../../../agent/transport.ts";
import type { Vm } from "../../../client/vm.ts";
import { E2bError } from "../errors.ts";
import type { GuestUser, GuestUsers } from "./users.ts";

/** Whose files are looked at, and with whose rights. */
export interface FilesContext {
  vm: Vm;
  user: GuestUser;
  users: GuestUsers;
}

/**
 * On files every user may do everything, as with envd: whoever calls could name root as well, so
 * permissions keep nobody out. What is made is the user's.
 */
export function rightsOf({ name }: GuestUser): { user: string; override: true } {
  return { user: name, override: true };
}

const TYPE: Partial<Record<FileEntry["type"], string>> = {
  file: "FILE_TYPE_FILE",
  dir: "FILE_TYPE_DIRECTORY",
  symlink: "FILE_TYPE_SYMLINK",
};

/** `-rw-r--r--` as Go's FileMode writes it: `d` and `L` for directories and symlinks. */
function permissions(type: FileEntry["type"], mode: number): string {
  const first = type === "dir" ? "d" : type === "symlink" ? "L" : "-";
  const bits = [6, 3, 0].map((shift) =>
    ["r", "w", "x"].map((letter, i) => ((mode >> shift) & (4 >> i) ? letter : "-")).join(""),
  );
  return first + bits.join("");
}

/** Extended attributes below this are a file's metadata, by what follows. */
export const METADATA_PREFIX = "user.e2b.";

/** What is at a path, with its metadata. */
export async function look(
  { vm, user }: FilesContext,
  at: string,
  follow = false,
): Promise<FileEntry> {
  const options = { ...rightsOf(user), follow, attributes: METADATA_PREFIX };
  return await statFile(vm.transport, at, options);
}

/** The same; undefined when there is nothing, or nothing that this user may see. */
export async function lookOrNothing(
  context: FilesContext,
  at: string,
  follow = false,
): Promise<FileEntry | undefined> {
  try {
    return await look(context, at, follow);
  } catch (error) {
    if (guestErrno(error) === undefined) throw error;
    return undefined;
  }
}

/** One entry as clients see it; of a symlink, what it points to with the link's own name. */
export async function entryOf(context: FilesContext, entry: FileEntry): Promise<object> {
  const { vm, users } = context;
  // A link that points nowhere is all there is itself.
  const target = entry.type === "symlink" && (await lookOrNothing(context, entry.path, true));
  const shown = target || entry;
  const { owner, group } = await users.owner(vm, shown.uid, shown.gid);
  return {
    name: entry.name.toString("utf8"),
    type: TYPE[shown.type] ?? "FILE_TYPE_UNSPECIFIED",
    path: entry.path,
    size: String(shown.size),
    mode: shown.mode,
    permissions: permissions(entry.type, shown.mode),
    owner,
    group,
    modifiedTime: new Date(Number(shown.mtimeNs / 1_000_000n)).toISOString(),
    ...(shown.attributes.size === 0
      ? {}
      : {
          metadata: Object.fromEntries(
            [...shown.attributes].map(([name, value]) => [name, value.toString("utf8")]),
          ),
        }),
    ...(entry.target === undefined
      ? {}
      : { symlinkTarget: posix.resolve(posix.dirname(entry.path), entry.target.toString("utf8")) }),
  };
}

/** The entry at a path. @throws not_found */
export async function stat(context: FilesContext, at: string): Promise<FileEntry> {
  try {
    return await look(context, at);
  } catch (error) {
    if (guestErrno(error) === "ENOENT" || guestErrno(error) === "ENOTDIR") {
      throw new E2bError("not_found", `file not found: ${at}`);
    }
    throw error;
  }
}

const EVENT: Partial<Record<WatchEvent["event"], string>> = {
  create: "EVENT_TYPE_CREATE",
  modify: "EVENT_TYPE_WRITE",
  attrib: "EVENT_TYPE_CHMOD",
  remove: "EVENT_TYPE_REMOVE",
};

/** One change as clients see it; undefined for what they have no word for. */
export async function changeOf(
  context: FilesContext,
  root: string,
  event: WatchEvent,
  includeEntry: boolean,
): Promise<object | undefined> {
  // The old name of what was moved; the new one is a creation.
  const renamed = event.event === "remove" && event.moved;
  const type = renamed ? "EVENT_TYPE_RENAME" : EVENT[event.event];
  const at = event.path.toString("utf8");
  if (type === undefined || at === root) return undefined;
  const name = posix.relative(root, at);
  if (!includeEntry || event.event === "remove") return { name, type };
  try {
    return { name, type, entry: await entryOf(context, await stat(context, at)) };
  } catch {
    // It is gone by now; the event stands.
    return { name, type };
  }
}

/** A directory to watch. @throws not_found, invalid_argument */
export async function watchable(context: FilesContext, at: string): Promise<void> {
  await stat(context, at);
  const entry = await look(context, at, true);
  if (entry.type !== "dir")
    throw new E2bError("invalid_argument", `path is not a directory: ${at}`);
}

/** Make the directories that a file is to be in. */
export async function makeParents(context: FilesContext, at: string): Promise<void> {
  const { vm, user } = context;
  const parent = posix.dirname(at);
  if ((await lookOrNothing(context, parent, true)) !== undefined) return;
  await makeDirectory(vm.transport, parent, { ...rightsOf(user), parents: true });
}
