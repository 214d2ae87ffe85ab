/** What is in a volume: `/volumecontent/ID/file`, `dir` and `path`, by the volume's token. */
import { posix } from "node:path";
import type { IncomingMessage, ServerResponse } from "node:http";
import * as z from "zod";
import {
  changeFile,
  listFiles,
  makeDirectory,
  removeFile,
  statFile,
} from "../../../agent/files.ts";
import type { FileEntry } from "../../../agent/files.ts";
import { guestErrno } from "../../../agent/transport.ts";
import { PROJECT_LABEL } from "../../../model/volume.ts";
import { validate } from "../../../schema/api.ts";
import { E2bError } from "../errors.ts";
import { parseObject, readBody } from "../envd/connect.ts";
import { sendContent } from "../envd/files.ts";
import type { Place } from "./places.ts";
import { volumeOfToken } from "./volumes.ts";
import type { VolumeContext } from "./volumes.ts";

const ROUTE = /^\/volumecontent\/([^/?]{1,128})\/(file|dir|path)(?:\?|$)/;
/** Most links in a path, as in the kernel. */
const MAX_LINKS = 40;
const DIRECTORY_MODE = 0o777;
const FILE_MODE = 0o666;

const id = z.coerce.number().int().min(0).max(4_294_967_294).optional();
const mode = z.coerce.number().int().min(0).max(0o7777).optional();
const ownership = { uid: id, gid: id, mode };
const querySchema = z.object({
  path: z.string().min(1).max(4096),
  depth: z.coerce.number().int().min(1).max(10).default(1),
  force: z.enum(["true", "false"]).default("false"),
  ...ownership,
});
const changeSchema = z.object({
  uid: id.nullish(),
  gid: id.nullish(),
  mode: mode.nullish(),
});

type Query = z.infer<typeof querySchema>;

/** A call about a place in a volume. */
interface ContentCall {
  place: Place;
  query: Query;
  request: IncomingMessage;
  response: ServerResponse;
}

/** What is answered; nothing when it was sent already. */
type Content = { status: number; body?: object } | undefined;

/** Whether a request is about what is in a volume. */
export function isVolumeContent({ url = "" }: IncomingMessage): boolean {
  return url.startsWith("/volumecontent/");
}

/** A path of a volume where it is in the guest. */
interface Located {
  /** Absolute, in the guest. */
  at: string;
  /** From the volume's root, absolute: as clients write it. */
  shown: string;
  /** Undefined: nothing is there. */
  entry?: FileEntry;
  /** Directories above it that are missing, absolute in the guest, outer ones first. */
  missing: string[];
}

async function look({ vm }: Place, at: string): Promise<FileEntry | undefined> {
  try {
    return await statFile(vm.transport, at);
  } catch (error) {
    if (guestErrno(error) === "ENOENT") return undefined;
    throw error;
  }
}

/**
 * Find a path. Links lead as if the volume were all there is: none leads out of it.
 * @param follow whether a link at its end is followed
 */
async function locate(place: Place, path: string, follow: boolean): Promise<Located> {
  const shown = posix.normalize(`/${path}`).replace(/(?<=.)\/$/, "");
  const left = shown.split("/");
  const found: string[] = [];
  const missing: string[] = [];
  const guestPath = (): string => [place.root, ...found].join("/");
  for (let links = 0; left.length > 0;) {
    const name = left.shift() ?? "";
    if (name === "" || name === ".") continue;
    if (name === "..") {
      found.pop();
      continue;
    }
    found.push(name);
    const ahead = left.some((one) => one !== "" && one !== ".");
    if (missing.length > 0) {
      if (ahead) missing.push(guestPath());
      continue;
    }
    if (!ahead && !follow) continue;
    const entry = await look(place, guestPath());
    if (entry === undefined && ahead) missing.push(guestPath());
    if (entry?.type !== "symlink") continue;
    links += 1;
    if (links > MAX_LINKS) throw new E2bError("invalid_argument", `too many links: ${shown}`);
    const target = entry.target?.toString("utf8") ?? "";
    if (target.startsWith("/")) found.length = 0;
    else found.pop();
    left.unshift(...target.split("/"));
  }
  const at = guestPath();
  const entry = missing.length > 0 ? undefined : await look(place, at);
  return { at, shown, missing, ...(entry === undefined ? {} : { entry }) };
}

/** What has to be there. @throws not_found */
function present({ entry, shown }: Located): FileEntry {
  if (entry === undefined) throw new E2bError("not_found", `${shown} not found`);
  return entry;
}

function time(ns: bigint): string {
  return new Date(Number(ns / 1_000_000n)).toISOString();
}

const TYPES: Partial<Record<FileEntry["type"], string>> = {
  file: "file",
  dir: "directory",
  symlink: "symlink",
};

/** An entry as clients see it. */
function entryOf(entry: FileEntry, path: string): object {
  return {
    name: posix.basename(path),
    type: TYPES[entry.type] ?? "unknown",
    path,
    size: entry.size,
    mode: entry.mode,
    uid: entry.uid,
    gid: entry.gid,
    atime: time(entry.atimeNs),
    mtime: time(entry.mtimeNs),
    ctime: time(entry.ctimeNs),
    ...(entry.target === undefined ? {} : { target: entry.target.toString("utf8") }),
  };
}

/** The same of a path, looked at again. */
async function shownAt(place: Place, { at, shown }: Located): Promise<object> {
  return entryOf(await statFile(place.vm.transport, at), shown);
}

/** Make the directories above a path, if that is asked for. @throws not_found */
async function makeParents(
  { place, query }: ContentCall,
  { missing, shown }: Located,
): Promise<void> {
  if (missing.length > 0 && query.force !== "true")
    throw new E2bError("not_found", `the directory of ${shown} not found`);
  for (const at of missing) await makeOne(place, at, { ...query, mode: undefined });
}

/** Make a directory with the owner that is asked for. */
async function makeOne(
  { vm }: Place,
  at: string,
  { uid = 0, gid = 0, mode: wanted = DIRECTORY_MODE }: Pick<Query, "uid" | "gid" | "mode">,
): Promise<void> {
  await makeDirectory(vm.transport, at, { mode: wanted });
  if (uid !== 0 || gid !== 0) await changeFile(vm.transport, at, { uid, gid });
}

/** Paths that are being made, so that of two who want to be the first one is told. */
const making = new Set<string>();

const CALLS: Record<string, (call: ContentCall) => Promise<Content>> = {
  "GET path": async ({ place, query }) => {
    const found = await locate(place, query.path, false);
    return { status: 200, body: entryOf(present(found), found.shown) };
  },
  "PATCH path": async ({ place, query, request }) => {
    const {
      uid,
      gid,
      mode: wanted,
    } = validate(changeSchema, parseObject(await readBody(request)), "metadata");
    const found = await locate(place, query.path, true);
    present(found);
    await changeFile(place.vm.transport, found.at, {
      ...(uid === undefined || uid === null ? {} : { uid }),
      ...(gid === undefined || gid === null ? {} : { gid }),
      ...(wanted === undefined || wanted === null ? {} : { mode: wanted }),
    });
    return { status: 200, body: await shownAt(place, found) };
  },
  "DELETE path": async ({ place, query }) => {
    const found = await locate(place, query.path, false);
    if (found.at === place.root) throw new E2bError("invalid_argument", "cannot delete root");
    present(found);
    await removeFile(place.vm.transport, found.at, { recursive: true });
    return { status: 204 };
  },
  "GET dir": async ({ place, query }) => {
    const found = await locate(place, query.path, true);
    if (present(found).type !== "dir")
      throw new E2bError("invalid_argument", `${found.shown} is no directory`);
    const { depth } = query;
    const entries = await listFiles(place.vm.transport, found.at, { recursive: depth > 1, depth });
    const body = entries.map((entry) =>
      entryOf(entry, posix.join(found.shown, posix.relative(found.at, entry.path))),
    );
    return { status: 200, body };
  },
  "POST dir": async (call) => {
    const { place, query } = call;
    const found = await locate(place, query.path, true);
    if (found.entry !== undefined && !(query.force === "true" && found.entry.type === "dir"))
      throw new E2bError("already_exists", `${found.shown} exists`);
    await makeParents(call, found);
    if (found.entry === undefined) await makeOne(place, found.at, query);
    return { status: 201, body: await shownAt(place, found) };
  },
  "GET file": async ({ place, query, response }) => {
    const found = await locate(place, query.path, true);
    const entry = present(found);
    if (entry.type !== "file")
      throw new E2bError("invalid_argument", `${found.shown} is no regular file`);
    await sendContent(response, await place.vm.openFile(found.at), entry);
    return undefined;
  },
  "PUT file": async (call) => {
    const { place, query, request } = call;
    const found = await locate(place, query.path, true);
    const { at, shown, entry } = found;
    if (entry?.type === "dir") throw new E2bError("invalid_argument", `${shown} is a directory`);
    const taken = new E2bError("already_exists", `${shown} exists`);
    if (entry !== undefined && query.force !== "true") throw taken;
    await makeParents(call, found);
    const name = `${place.vm.id} ${at}`;
    if (query.force !== "true" && making.has(name)) throw taken;
    making.add(name);
    try {
      const { uid = 0, gid = 0, mode: wanted = FILE_MODE } = query;
      await place.vm.writeFile(at, request, { user: "root", mode: wanted });
      await changeFile(place.vm.transport, at, { uid, gid, mode: wanted });
    } finally {
      making.delete(name);
    }
    return { status: 201, body: await shownAt(place, found) };
  },
};

/** All routes, `:volume` for any. */
export const contentRoutes: readonly string[] = Object.keys(CALLS).map((call) =>
  call.replace(" ", " /volumecontent/:volume/"),
);

/** Answer a call about what is in a volume. @throws E2bError, VmsanError */
export async function volumeContent(
  context: VolumeContext,
  request: IncomingMessage,
  response: ServerResponse,
  params: URLSearchParams,
): Promise<Content> {
  const [, volumeId = "", what = ""] = ROUTE.exec(request.url ?? "") ?? [];
  const { name, labels } = await volumeOfToken(context, request, volumeId);
  const project = labels[PROJECT_LABEL];
  const wanted = { name, ...(project === undefined ? {} : { project }) };
  const key = `${request.method} ${what}`;
  const run = Object.hasOwn(CALLS, key) ? CALLS[key] : undefined;
  if (run === undefined)
    throw new E2bError("unimplemented", `${key.slice(0, 80)} is not offered`, 501);
  const query = validate(querySchema, Object.fromEntries(params), "query");
  const work = async (place: Place): Promise<Content> =>
    await run({ place, query, request, response });
  const { places } = context;
  return await (request.method === "GET" ? places.use(wanted, work) : places.change(wanted, work));
}
