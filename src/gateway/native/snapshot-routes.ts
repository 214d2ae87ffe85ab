/** Routes about snapshots, what is made of them, and sleep. Snapshots belong to the project of their VM. */
import { basename } from "node:path";
import * as z from "zod";
import { snapshotPath } from "../../client/snapshots.ts";
import { vmPath } from "../../client/paths.ts";
import { jsonBody, streamedReply } from "../../http/reply.ts";
import type { CloneRequest, SnapshotView, VmView } from "../../model/api.ts";
import { VmsanError } from "../../model/errors.ts";
import { validate } from "../../schema/api.ts";
import { parseName } from "../../util/names.ts";
import type { Caller } from "../access/gate.ts";
import { forkOf, occupied } from "../access/limits.ts";
import type { Wanted } from "../access/limits.ts";
import { remoteCloneRequest, remoteCloneSchema, remoteSnapshotSchema } from "./bodies.ts";
import { checkNetworks } from "./network-routes.ts";
import { making } from "./making.ts";
import { remoteView, vmOf } from "./own-vm.ts";
import type { Route, RouteContext } from "./route.ts";

const restoreSchema = z.strictObject({ snapshot: z.string().min(1).max(63) });
const pruneSchema = z.strictObject({ all: z.boolean().default(false) });

const seesSnapshot = ({ key }: Caller, { project }: SnapshotView): boolean =>
  key.admin || project === key.project;

/** A snapshot as remote callers see it: without paths of the host. */
const remoteSnapshot = (view: SnapshotView): SnapshotView => ({
  ...view,
  kernel: basename(view.kernel),
});

/** A snapshot that the caller may use. @throws ERR_VM_SNAPSHOT_NOT_FOUND, also for those of other projects */
async function ownSnapshot(context: RouteContext, ref: string): Promise<SnapshotView> {
  const view = await context.vmsan.snapshots.get(ref);
  if (seesSnapshot(context.caller, view)) return view;
  throw new VmsanError({
    code: "ERR_VM_SNAPSHOT_NOT_FOUND",
    message: `There is no snapshot ${ref}`,
    why: "No snapshot has this ID or name.",
    fix: "See the list of snapshots.",
  });
}

const snapshotOf = async (context: RouteContext): Promise<SnapshotView> =>
  await ownSnapshot(context, context.c.req.param("snapshot") ?? "");

/** Make VMs alike within the key's limits. @param size of each */
async function makeVms(
  context: RouteContext,
  path: string,
  request: CloneRequest,
  size: Wanted,
): Promise<Response> {
  const { caller, vmsan, gate } = context;
  const wanted = Array.from({ length: request.count }, () => size);
  const giveBack = gate.quotas.reserve(caller.key, wanted, await occupied(vmsan, caller.key));
  return making<VmView[]>(context, path, request, giveBack, (views) => views.map(remoteView));
}

/** The routes. */
export const snapshotRoutes: readonly Route[] = [
  {
    method: "GET",
    path: "/v1/snapshots",
    summary: "Snapshots of VMs of the key's project",
    answers: "json",
    run: async ({ c, caller, vmsan }) => {
      const all = await vmsan.snapshots.list();
      const seen = all.filter((view) => seesSnapshot(caller, view));
      return c.json({ snapshots: seen.map(remoteSnapshot) });
    },
  },
  {
    method: "POST",
    path: "/v1/snapshots/prune",
    summary: "Remove snapshots that no VM was made of and that have no name",
    admin: true,
    body: pruneSchema,
    answers: "json",
    run: async ({ c, vmsan }) => {
      const body = validate(pruneSchema, await jsonBody(c), "request to prune snapshots");
      return c.json(await vmsan.snapshots.prune(body));
    },
  },
  {
    method: "GET",
    path: "/v1/snapshots/:snapshot",
    summary: "One snapshot",
    answers: "json",
    run: async (context) => context.c.json(remoteSnapshot(await snapshotOf(context))),
  },
  {
    method: "DELETE",
    path: "/v1/snapshots/:snapshot",
    summary: "Remove a snapshot; VMs that were made of it stay",
    answers: "nothing",
    run: async (context) => {
      const { id } = await snapshotOf(context);
      await context.vmsan.snapshots.remove(id);
      return context.c.body(null, 204);
    },
  },
  {
    method: "POST",
    path: "/v1/snapshots/:snapshot/vms",
    summary: "Make VMs of a snapshot, which go on where it was taken",
    body: remoteCloneSchema,
    answers: "lines",
    run: async (context) => {
      const view = await snapshotOf(context);
      const request = remoteCloneRequest(context.caller, await jsonBody(context.c));
      // The VM may have been taken out of them since.
      const theirs = view.networks ?? [];
      await checkNetworks(
        context.vmsan,
        context.caller,
        request.networks?.map(({ network }) => network) ?? theirs,
      );
      return await makeVms(context, snapshotPath(view.id, "vms"), request, view);
    },
  },
  {
    method: "POST",
    path: "/v1/vms/:vm/snapshots",
    summary: "Take a snapshot of a VM: of a running one with its memory",
    body: remoteSnapshotSchema,
    answers: "lines",
    run: async (context) => {
      const { id } = await vmOf(context);
      const body = await jsonBody(context.c);
      const wish = validate(remoteSnapshotSchema, body, "request to take a snapshot");
      const { name, memory, resume } = wish;
      if (name !== undefined) parseName(name);
      return streamedReply<SnapshotView>(context.c, async ({ signal, progress }) =>
        remoteSnapshot(
          await context.vmsan.snapshots.create(id, {
            ...(name === undefined ? {} : { name }),
            diskOnly: !memory,
            resume,
            signal,
            onProgress: progress,
          }),
        ),
      );
    },
  },
  {
    method: "POST",
    path: "/v1/vms/:vm/fork",
    summary: "Make VMs of a running one, which go on where it is now",
    body: remoteCloneSchema,
    answers: "lines",
    run: async (context) => {
      const { id, view } = await vmOf(context);
      const request = remoteCloneRequest(context.caller, await jsonBody(context.c));
      const names = request.networks?.map(({ network }) => network) ?? [];
      await checkNetworks(context.vmsan, context.caller, names);
      const size = await forkOf(context.vmsan, context.caller.key, view);
      return await makeVms(context, vmPath(id, "fork"), request, size);
    },
  },
  {
    method: "POST",
    path: "/v1/vms/:vm/restore",
    summary: "Put a VM back to one of its snapshots",
    body: restoreSchema,
    answers: "lines",
    run: async (context) => {
      const { id } = await vmOf(context);
      const body = validate(restoreSchema, await jsonBody(context.c), "request to restore a VM");
      const snapshot = await ownSnapshot(context, body.snapshot);
      return streamedReply<VmView>(context.c, async ({ signal, progress }) =>
        remoteView(
          await context.vmsan.daemon.streamed<VmView>("POST", vmPath(id, "restore"), {
            body: { snapshot: snapshot.id },
            signal,
            onProgress: progress,
          }),
        ),
      );
    },
  },
  {
    method: "POST",
    path: "/v1/vms/:vm/suspend",
    summary: "Put a VM to sleep: its memory is kept in a file until it starts",
    answers: "lines",
    run: async (context) => {
      const { id } = await vmOf(context);
      return streamedReply<VmView>(context.c, async ({ signal, progress }) =>
        remoteView(
          await context.vmsan.daemon.streamed<VmView>("POST", vmPath(id, "suspend"), {
            signal,
            onProgress: progress,
          }),
        ),
      );
    },
  },
];
