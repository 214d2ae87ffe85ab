/** The table of routes: each is served and described from the same entry. */
import { Readable } from "node:stream";
import type { Context } from "hono";
import * as z from "zod";
import type { Vm } from "../../client/vm.ts";
import { jsonBody, streamedReply } from "../../http/reply.ts";
import type { VmView } from "../../model/api.ts";
import { VmsanError } from "../../model/errors.ts";
import { vmPath } from "../../client/paths.ts";
import { sizesSchema, validate, withoutUndefined } from "../../schema/api.ts";
import { packageVersion } from "../../util/package.ts";
import { sees } from "../access/gate.ts";
import { occupied, scopeOf } from "../access/limits.ts";
import {
  checkPolicy,
  execResultSchema,
  execSchema,
  remoteCreateRequest,
  remoteCreateSchema,
  remotePolicySchema,
} from "./bodies.ts";
import { hostRoutes } from "./host-routes.ts";
import { checkNetworks, networkRoutes } from "./network-routes.ts";
import { making } from "./making.ts";
import { remoteView, vmOf } from "./own-vm.ts";
import type { Route, RouteContext } from "./route.ts";
import { snapshotRoutes } from "./snapshot-routes.ts";
import { volumeRoutes } from "./volume-routes.ts";
import { watchRoutes } from "./watch-routes.ts";

/** Calls to the agent that are handed through as they are; as the daemon has them. */
const AGENT_REST =
  /^\/v1\/(?:hello|stats|processes|seal|limits|streams(?:\/[0-9a-f]{16}(?:\/(?:wait|signal))?)?|fs\/[a-z]+)$/;

const stopSchema = z.strictObject({ graceMs: z.int().min(0).max(3_600_000).optional() });

/** Most bytes of a file written by one request. */
const MAX_FILE = 2 ** 40;

/** Bytes of the SDK as a reply's body. */
function bytes(c: Context, source: Readable, type: string): Response {
  return c.body(Readable.toWeb(source) as ReadableStream, 200, { "content-type": type });
}

/** What a VM has written, and with `follow` what it goes on to write. */
async function followed(
  context: RouteContext,
  type: string,
  open: (vm: Vm, options: { follow: boolean; signal: AbortSignal }) => Promise<Readable>,
): Promise<Response> {
  const { c } = context;
  const follow = c.req.query("follow") === "true";
  return bytes(c, await open(await vmOf(context), { follow, signal: c.req.raw.signal }), type);
}

/** The `path` parameter. @throws ERR_VALIDATION_FLAGS */
function pathOf(c: Context): string {
  const path = c.req.query("path");
  if (path !== undefined && path !== "" && path.length <= 4096 && !path.includes("\0")) return path;
  throw new VmsanError({
    code: "ERR_VALIDATION_FLAGS",
    message: "The request names no file",
    why: "The query parameter `path` is missing, or is no path.",
    fix: "Add ?path=/a/file.",
  });
}

/** Make a VM within the key's limits. */
async function create(context: RouteContext): Promise<Response> {
  const { c, caller, vmsan, gate, driver } = context;
  const request = remoteCreateRequest(caller, await jsonBody(c), driver);
  const names = request.networks.map(({ network }) => network);
  await checkNetworks(vmsan, caller, names);
  const giveBack = gate.quotas.reserve(caller.key, [request], await occupied(vmsan, caller.key));
  return making<VmView>(context, "/v1/vms", request, giveBack, remoteView);
}

/** All routes. */
export const routes: readonly Route[] = [
  {
    method: "GET",
    path: "/v1/version",
    summary: "Version of the gateway, and whose key this is",
    answers: "json",
    reply: z.strictObject({
      version: z.string(),
      protocol: z.int(),
      project: z.string(),
      admin: z.boolean(),
    }),
    run: ({ c, caller: { key } }) =>
      c.json({ version: packageVersion(), protocol: 1, project: key.project, admin: key.admin }),
  },
  {
    method: "GET",
    path: "/v1/vms",
    summary: "VMs of the key's project, oldest first",
    query: {
      after: "`next` of the page before; absent there: it was the last",
      project: "only of this project",
    },
    answers: "json",
    run: async ({ c, caller, vmsan }) => {
      const after = c.req.query("after");
      const project = c.req.query("project");
      const { vms, next } = await vmsan.page({
        ...(after === undefined ? {} : { after }),
        ...(project === undefined ? {} : { project }),
        ...scopeOf(caller.key),
      });
      return c.json({ vms: vms.filter((view) => sees(caller, view)).map(remoteView), next });
    },
  },
  {
    method: "POST",
    path: "/v1/vms",
    summary: "Make a VM and wait until commands can run in it",
    body: remoteCreateSchema,
    answers: "lines",
    run: create,
  },
  {
    method: "GET",
    path: "/v1/vms/:vm",
    summary: "One VM",
    answers: "json",
    run: async (context) => context.c.json(remoteView((await vmOf(context)).view)),
  },
  {
    method: "DELETE",
    path: "/v1/vms/:vm",
    summary: "Remove a VM with its disk",
    query: { force: "true: also while it runs" },
    answers: "nothing",
    run: async (context) => {
      const { id } = await vmOf(context);
      await context.vmsan.remove(id, { force: context.c.req.query("force") === "true" });
      return context.c.body(null, 204);
    },
  },
  {
    method: "POST",
    path: "/v1/vms/:vm/start",
    summary: "Start a stopped VM",
    answers: "lines",
    run: async (context) => {
      const { id } = await vmOf(context);
      return streamedReply<VmView>(context.c, async (work) => {
        const vm = await context.vmsan.start(id, {
          signal: work.signal,
          onProgress: work.progress,
        });
        return remoteView(vm.view);
      });
    },
  },
  {
    method: "POST",
    path: "/v1/vms/:vm/stop",
    summary: "Stop a VM: gracefully, by force after the grace time",
    body: stopSchema,
    answers: "nothing",
    run: async (context) => {
      const vm = await vmOf(context);
      const { graceMs } = validate(stopSchema, await jsonBody(context.c), "request to stop a VM");
      await vm.stop(graceMs);
      return context.c.body(null, 204);
    },
  },
  {
    method: "POST",
    path: "/v1/vms/:vm/update",
    summary: "Change the size of a VM: the disk also while it runs",
    // A key's limits are looked at when a VM is made.
    admin: true,
    body: sizesSchema,
    answers: "json",
    run: async (context) => {
      const body = validate(sizesSchema, await jsonBody(context.c), "new size of a VM");
      const { diskSizeBytes, memMib, vcpus } = body;
      const vm = await vmOf(context);
      await vm.update({
        ...(diskSizeBytes === undefined ? {} : { disk: diskSizeBytes / 2 ** 30 }),
        ...(memMib === undefined ? {} : { memory: memMib }),
        ...(vcpus === undefined ? {} : { vcpus }),
      });
      return context.c.json(remoteView(vm.view));
    },
  },
  {
    method: "POST",
    path: "/v1/vms/:vm/pause",
    summary: "Halt a VM's processors",
    answers: "nothing",
    run: async (context) => {
      await (await vmOf(context)).pause();
      return context.c.body(null, 204);
    },
  },
  {
    method: "POST",
    path: "/v1/vms/:vm/resume",
    summary: "Let a paused VM go on",
    answers: "nothing",
    run: async (context) => {
      await (await vmOf(context)).resume();
      return context.c.body(null, 204);
    },
  },
  {
    method: "GET",
    path: "/v1/vms/:vm/hold",
    summary: "Keep an ephemeral VM while the connection is open",
    answers: "lines",
    run: async (context) => {
      const vm = await vmOf(context);
      let release: (() => void) | undefined;
      return streamedReply<VmView>(
        context.c,
        async ({ signal }) =>
          await context.vmsan.daemon.streamed<VmView>("GET", vmPath(vm.id, "hold"), {
            signal,
            onHold: (end) => void (release = end),
          }),
        async (gone) => {
          await gone;
          release?.();
        },
      );
    },
  },
  {
    method: "PUT",
    path: "/v1/vms/:vm/policy",
    summary: "Put a network policy in force",
    body: remotePolicySchema,
    answers: "json",
    run: async (context) => {
      const vm = await vmOf(context);
      const policy = validate(remotePolicySchema, await jsonBody(context.c), "network policy");
      checkPolicy(context.caller, policy);
      await vm.setPolicy(withoutUndefined(policy) as VmView["policy"]);
      return context.c.json(remoteView(vm.view));
    },
  },
  {
    method: "GET",
    path: "/v1/vms/:vm/decisions",
    summary: "What the network policy has decided, lines of JSON",
    query: { follow: "true: goes on as decisions fall" },
    answers: "bytes",
    run: async (context) =>
      await followed(context, "application/x-ndjson", (vm, options) => vm.decisions(options)),
  },
  {
    method: "GET",
    path: "/v1/vms/:vm/console",
    summary: "The guest's console",
    query: { follow: "true: goes on as it is written" },
    answers: "bytes",
    run: async (context) =>
      await followed(context, "text/plain; charset=utf-8", (vm, options) => vm.console(options)),
  },
  {
    method: "POST",
    path: "/v1/vms/:vm/exec",
    summary: "Run a command to its end and collect what it prints (at most 64 MiB)",
    body: execSchema,
    answers: "json",
    reply: execResultSchema,
    run: async (context) => {
      const vm = await vmOf(context);
      const { argv, ...options } = withoutUndefined(
        validate(execSchema, await jsonBody(context.c), "command"),
      );
      const done = await vm.exec(argv, {
        ...(options as Parameters<Vm["exec"]>[1]),
        signal: context.c.req.raw.signal,
      });
      const { exitCode, signal, timedOut } = done;
      return context.c.json({
        exitCode,
        ...(signal === undefined ? {} : { signal }),
        timedOut: timedOut ?? false,
        stdout: done.stdout.toString("utf8"),
        stderr: done.stderr.toString("utf8"),
      });
    },
  },
  {
    method: "GET",
    path: "/v1/vms/:vm/files",
    summary: "A file's bytes",
    query: { path: "absolute, or relative to the user's home", user: "whose rights count" },
    answers: "bytes",
    run: async (context) => {
      const vm = await vmOf(context);
      const { c } = context;
      const user = c.req.query("user");
      const source = await vm.openFile(pathOf(c), {
        signal: c.req.raw.signal,
        ...(user === undefined ? {} : { user }),
      });
      return bytes(c, source, "application/octet-stream");
    },
  },
  {
    method: "PUT",
    path: "/v1/vms/:vm/files",
    summary: "Write a file; it appears under its name when it is whole",
    query: { path: "absolute, or relative to the user's home", user: "its owner", mode: "octal" },
    answers: "nothing",
    run: async (context) => {
      const vm = await vmOf(context);
      const { c } = context;
      const user = c.req.query("user");
      const mode = /^[0-7]{1,4}$/.exec(c.req.query("mode") ?? "")?.[0];
      await vm.writeFile(pathOf(c), bounded(c.req.raw.body), {
        signal: c.req.raw.signal,
        ...(user === undefined ? {} : { user }),
        ...(mode === undefined ? {} : { mode: Number.parseInt(mode, 8) }),
      });
      return c.body(null, 204);
    },
  },
  {
    method: "GET",
    path: "/v1/vms/:vm/ssh",
    summary: "The public key by which a VM's server of ssh is known",
    answers: "json",
    run: async (context) => context.c.json({ hostKey: await (await vmOf(context)).sshHostKey() }),
  },
  {
    method: "POST",
    path: "/v1/vms/:vm/ssh",
    summary: "Have a VM ready for streams of kind ssh",
    answers: "json",
    run: async (context) => context.c.json({ hostKey: await (await vmOf(context)).prepareSsh() }),
  },
  ...(["GET", "POST", "PUT", "DELETE"] as const).map((method): Route => ({
    method,
    path: "/v1/vms/:vm/agent/*",
    summary: "The guest agent's own calls (protocol/README.md)",
    answers: "json",
    run: async (context) => {
      const vm = await vmOf(context);
      const { c } = context;
      const path = new URL(c.req.url).pathname.replace(/^\/v1\/vms\/[^/]+\/agent/, "");
      if (!AGENT_REST.test(path)) return c.notFound();
      const body = method === "GET" || method === "DELETE" ? undefined : await jsonBody(c);
      const reply = await vm.transport.request<unknown>(method, path, {
        ...(body === undefined ? {} : { body }),
        signal: c.req.raw.signal,
      });
      return reply === undefined ? c.body(null, 204) : c.json(reply as object);
    },
  })),
  ...hostRoutes,
  ...snapshotRoutes,
  ...volumeRoutes,
  ...watchRoutes,
  ...networkRoutes,
];

/** A request's body, cut off above the bound. */
async function* bounded(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Buffer> {
  let size = 0;
  for await (const chunk of body ?? []) {
    size += chunk.length;
    if (size > MAX_FILE) {
      throw new VmsanError({
        code: "ERR_GATEWAY_TOO_LARGE",
        message: `A file of more than ${MAX_FILE} bytes`,
      });
    }
    yield Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  }
}
