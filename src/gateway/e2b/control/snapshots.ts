/** Snapshots and forks of sandboxes. */
import * as z from "zod";
import type { VmView } from "../../../model/api.ts";
import { VmsanError } from "../../../model/errors.ts";
import { validate } from "../../../schema/api.ts";
import type { Caller } from "../../access/gate.ts";
import { KEY_LABEL, forkOf, occupied } from "../../access/limits.ts";
import { E2bError } from "../errors.ts";
import { sandboxReply, stateOf } from "../sandbox.ts";
import { vmLimit } from "./lifecycle.ts";
import { bareName, page } from "./pages.ts";
import type { SandboxControl } from "./sandboxes.ts";
import { isMeant, isSnapshotNamed } from "./store.ts";
import type { KnownSnapshot } from "./store.ts";

/** Most forks by one call. */
const MAX_FORKS = 100;

const createSchema = z.object({ name: z.string().min(1).max(128).nullish() });
const forkSchema = z.object({
  count: z.int().min(1).max(MAX_FORKS).nullish(),
  timeout: z.int().min(0).max(86_400).nullish(),
});

/** What clients are told of a snapshot. */
function view({ id, name, project }: KnownSnapshot): object {
  return { snapshotID: id, names: name === undefined ? [] : [`${project}/${name}:default`] };
}

/** Take a snapshot of a sandbox, which goes on. */
export async function createSnapshot(
  control: SandboxControl,
  caller: Caller,
  id: string,
  body: unknown,
): Promise<object> {
  const { vmsan, store } = control.context;
  const { name } = validate(createSchema, body, "snapshot");
  const vm = await control.find(caller, id);
  if (stateOf(vm.view) === "paused") throw new E2bError("failed_precondition", "it is paused", 409);
  const { id: snapshot, createdAt } = await vm.snapshot();
  const known: KnownSnapshot = {
    id: snapshot,
    project: vm.view.project,
    ...(name === undefined || name === null ? {} : { name: bareName(name, vm.view.project) }),
    sandboxID: vm.id,
    createdAt,
  };
  try {
    await store.change((remembered) => {
      for (const other of remembered.snapshots) {
        // A name means the last one that was given it.
        if (other.project === known.project && other.name === known.name) delete other.name;
      }
      remembered.snapshots.push(known);
    });
  } catch (error) {
    await vmsan.snapshots.remove(snapshot);
    throw error;
  }
  return view(known);
}

/** Snapshots of the caller's, newest first. @param query `sandboxID`, `name`, `limit`, `nextToken` */
export async function listSnapshots(
  control: SandboxControl,
  caller: Caller,
  query: URLSearchParams,
): Promise<{ items: object[]; nextToken?: string }> {
  const sandbox = query.get("sandboxID");
  const name = query.get("name");
  const { snapshots } = await control.context.store.load();
  const own = snapshots.filter(
    (one) =>
      (caller.key.admin || one.project === caller.key.project) &&
      (sandbox === null || one.sandboxID === sandbox) &&
      (name === null || isSnapshotNamed(one, name)),
  );
  const { items, nextToken } = page(own, query, (one) => `${one.createdAt}.${one.id}`, -1);
  return { items: items.map(view), ...(nextToken === undefined ? {} : { nextToken }) };
}

/** Remove a snapshot. @returns false when the caller has none of that name */
export async function removeSnapshot(
  control: SandboxControl,
  caller: Caller,
  ref: string,
): Promise<boolean> {
  const { vmsan, store } = control.context;
  const { snapshots } = await store.load();
  const known = snapshots.find((one) => isMeant(caller.key, one, ref));
  if (known === undefined) return false;
  await vmsan.snapshots.remove(known.id).catch((error: unknown) => {
    if (!(error instanceof VmsanError) || !error.code.endsWith("_NOT_FOUND")) throw error;
  });
  await store.change((remembered) => {
    remembered.snapshots = remembered.snapshots.filter(({ id }) => id !== known.id);
  });
  return true;
}

/** Make sandboxes that go on where one is now; it goes on too. @returns one entry a fork */
export async function fork(
  control: SandboxControl,
  caller: Caller,
  id: string,
  body: unknown,
): Promise<object[]> {
  const { vmsan, gate } = control.context;
  const wish = validate(forkSchema, body, "fork");
  const count = wish.count ?? 1;
  const vm = await control.find(caller, id);
  if (stateOf(vm.view) === "paused") throw new E2bError("failed_precondition", "it is paused", 409);
  const { labels, project } = vm.view;
  const one = await forkOf(vmsan, caller.key, vm.view);
  const wanted = Array.from({ length: count }, () => one);
  const giveBack = gate.quotas.reserve(caller.key, wanted, await occupied(vmsan, caller.key));
  try {
    const forks = await vmsan.fork(vm.id, {
      count,
      project,
      labels: { ...labels, [KEY_LABEL]: caller.key.id },
    });
    const ms =
      wish.timeout === undefined || wish.timeout === null ? undefined : wish.timeout * 1000;
    const limit = ms === undefined ? vm.view.timeoutMs : vmLimit(labels, ms);
    return await Promise.all(
      forks.map(async (fork) => {
        if (limit !== undefined) await fork.extendTimeout(limit);
        const made: VmView = fork.view;
        return { sandbox: sandboxReply(made, control.reader(caller)) };
      }),
    );
  } finally {
    giveBack();
  }
}
