/** envd's filesystem.Filesystem: looking at files, moving them, watching them. */
import type { IncomingMessage, ServerResponse } from "node:http";
import * as z from "zod";
import {
  listFiles,
  makeDirectory,
  moveFile,
  removeFile,
  watchFiles,
} from "../../../agent/files.ts";
import type { FileEntry } from "../../../agent/files.ts";
import { guestErrno } from "../../../agent/transport.ts";
import { validate } from "../../../schema/api.ts";
import { E2bError } from "../errors.ts";
import { ReplyStream, parseObject, readBody, requestMessages, sendUnary } from "./connect.ts";
import {
  METADATA_PREFIX,
  changeOf,
  entryOf,
  lookOrNothing,
  makeParents,
  rightsOf,
  stat,
  watchable,
} from "./entries.ts";
import type { FilesContext } from "./entries.ts";
import { failStream } from "./live.ts";
import { absolute } from "./paths.ts";
import type { Watchers } from "./watchers.ts";

const path = z.string().max(4096);
const pathSchema = z.object({ path });
const listSchema = z.object({ path, depth: z.int().min(0).max(64).optional() });
const moveSchema = z.object({ source: path, destination: path });
const watchSchema = z.object({
  path,
  recursive: z.boolean().optional(),
  includeEntry: z.boolean().optional(),
});
const watcherSchema = z.object({ watcherId: z.string().max(64) });

/** What this service needs besides. */
export interface FilesystemContext extends FilesContext {
  watchers: Watchers;
}

/** What is below a directory, down to a depth, in lexical order. */
async function list(context: FilesystemContext, at: string, depth: number): Promise<FileEntry[]> {
  const { vm, user } = context;
  const attributes = METADATA_PREFIX;
  const options = { ...rightsOf(user), recursive: depth > 1, depth, attributes };
  const entries = await listFiles(vm.transport, at, options);
  return entries.toSorted((a, b) => (a.path < b.path ? -1 : 1));
}

async function watch(
  request: IncomingMessage,
  response: ServerResponse,
  context: FilesystemContext,
): Promise<void> {
  const first = await requestMessages(request).next();
  const replies = new ReplyStream(request, response, { keepalive: {} });
  try {
    const wish = validate(watchSchema, first.value ?? {}, "watch");
    const root = absolute(wish.path, context.user);
    await watchable(context, root);
    const events = watchFiles(context.vm.transport, root, {
      recursive: wish.recursive ?? false,
      ...rightsOf(context.user),
      signal: replies.signal,
      onReady: () => void replies.send({ start: {} }),
    });
    for await (const event of events) {
      const change = await changeOf(context, root, event, wish.includeEntry ?? false);
      if (change !== undefined) await replies.send({ filesystem: change });
    }
    replies.end();
  } catch (error) {
    await failStream(context.vm, replies, replies.signal.aborted ? replies.signal.reason : error);
  }
}

const unary: Record<
  string,
  (context: FilesystemContext, body: Record<string, unknown>) => Promise<object>
> = {
  Stat: async (context, body) => {
    const at = absolute(validate(pathSchema, body, "path").path, context.user);
    return { entry: await entryOf(context, await stat(context, at)) };
  },
  ListDir: async (context, body) => {
    const wish = validate(listSchema, body, "directory");
    const at = absolute(wish.path, context.user);
    await watchable(context, at);
    const entries = await list(context, at, wish.depth || 1);
    return { entries: await Promise.all(entries.map((entry) => entryOf(context, entry))) };
  },
  MakeDir: async (context, body) => {
    const { vm, user } = context;
    const at = absolute(validate(pathSchema, body, "directory").path, user);
    const there = await lookOrNothing(context, at);
    if (there?.type === "dir")
      throw new E2bError("already_exists", `directory already exists: ${at}`);
    if (there !== undefined)
      throw new E2bError(
        "invalid_argument",
        `path already exists but it is not a directory: ${at}`,
      );
    await makeDirectory(vm.transport, at, { ...rightsOf(user), parents: true });
    return { entry: await entryOf(context, await stat(context, at)) };
  },
  Move: async (context, body) => {
    const { vm, user } = context;
    const wish = validate(moveSchema, body, "move");
    const from = absolute(wish.source, user);
    const to = absolute(wish.destination, user);
    await stat(context, from);
    await makeParents(context, to);
    await moveFile(vm.transport, from, to, { ...rightsOf(user), overwrite: true });
    return { entry: await entryOf(context, await stat(context, to)) };
  },
  Remove: async (context, body) => {
    const { vm, user } = context;
    const at = absolute(validate(pathSchema, body, "path").path, user);
    try {
      await removeFile(vm.transport, at, { ...rightsOf(user), recursive: true });
    } catch (error) {
      if (guestErrno(error) !== "ENOENT") throw error;
    }
    return {};
  },
  CreateWatcher: async (context, body) => {
    const wish = validate(watchSchema, body, "watch");
    const root = absolute(wish.path, context.user);
    await watchable(context, root);
    const watcherId = await context.watchers.create(context, root, {
      recursive: wish.recursive ?? false,
      includeEntry: wish.includeEntry ?? false,
    });
    return { watcherId };
  },
  GetWatcherEvents: async ({ vm, watchers }, body) => ({
    events: await watchers.take(vm.id, validate(watcherSchema, body, "watcher").watcherId),
  }),
  RemoveWatcher: async ({ vm, watchers }, body) => {
    watchers.remove(vm.id, validate(watcherSchema, body, "watcher").watcherId);
    return {};
  },
};

const streams: Record<string, typeof watch> = { WatchDir: watch };

/** All methods of the service. */
export const filesystemMethods: readonly string[] = [
  ...Object.keys(streams),
  ...Object.keys(unary),
];

/** Answer a call of the service. @param method the part of the path behind the service's name */
export async function filesystemService(
  request: IncomingMessage,
  response: ServerResponse,
  method: string,
  context: FilesystemContext,
): Promise<void> {
  const stream = Object.hasOwn(streams, method) ? streams[method] : undefined;
  if (stream !== undefined) return await stream(request, response, context);
  const call = Object.hasOwn(unary, method) ? unary[method] : undefined;
  if (call === undefined) throw new E2bError("unimplemented", `no method ${method.slice(0, 80)}`);
  sendUnary(response, await call(context, parseObject(await readBody(request))));
}
