/**
 * volumes/: E2B's volumes on vmsan's own. Takes the calls about volumes of a key, gives the mounts of sandboxes, and
 * reads and writes what is in them. Nothing is remembered here: whose a volume is, and its name there, are its labels.
 *
 * volumes.ts: made, found, removed; places.ts: the guest in which one is mounted; content.ts: what is in it.
 */
import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import * as z from "zod";
import type { Vmsan } from "../../../client/vmsan.ts";
import { VmsanError } from "../../../model/errors.ts";
import type { VolumeMount } from "../../../model/mount.ts";
import { PROJECT_LABEL } from "../../../model/volume.ts";
import type { VolumeView } from "../../../model/volume.ts";
import { validate } from "../../../schema/api.ts";
import { parseTarget } from "../../../util/mounts.ts";
import type { Caller, Gate } from "../../access/gate.ts";
import { KEY_LABEL, occupied } from "../../access/limits.ts";
import { E2bError } from "../errors.ts";
import type { VolumePlaces } from "./places.ts";

/** Label of volumes that clients of E2B have made: the name there. */
const NAME_LABEL = "vmsan.e2b.name";

/** Bytes of a volume whose maker says nothing of it, as E2B's clients do; it takes up what is in it alone. */
const SIZE_BYTES = 10 * 2 ** 30;

const createSchema = z.object({ name: z.string().regex(/^[A-Za-z0-9_-]{1,100}$/) });

/** What sandboxes are asked to mount. */
export const mountsSchema = z
  .array(z.object({ name: z.string().max(128), path: z.string().max(4095) }))
  .max(16);

/** A volume at a place of a sandbox, as clients write it. */
export type VolumeWish = z.infer<typeof mountsSchema>[number];

/** What the calls about volumes work with. */
export interface VolumeContext {
  vmsan: Vmsan;
  gate: Gate;
  places: VolumePlaces;
}

/** Its name for clients of E2B. */
function nameOf({ name, labels }: VolumeView): string {
  return labels[NAME_LABEL] ?? name;
}

/** What a volume's token is derived from: one that is made anew under the same name has another. */
function tokenSubject({ name, createdAt }: VolumeView): string {
  return `${name} ${createdAt}`;
}

/** Whether a caller may use a volume. */
function sees({ key }: Caller, { labels }: VolumeView): boolean {
  return key.admin || labels[PROJECT_LABEL] === key.project;
}

/** The volume's name on the host: of two that are made at once under one name, the second fails. */
function hostName(project: string, name: string): string {
  const hash = createHash("sha256").update(`${project}\0${name}`).digest("hex");
  return `e2b-${hash.slice(0, 24)}`;
}

/** What clients are told of a volume, its token included. */
function reply({ gate }: VolumeContext, { key }: Caller, volume: VolumeView): object {
  const token = gate.tokens.of(key, "volume", tokenSubject(volume));
  return { volumeID: volume.name, name: nameOf(volume), token };
}

/** A volume by its name on the host; undefined where there is none, or can be none. */
async function volumeOf(vmsan: Vmsan, id: string): Promise<VolumeView | undefined> {
  try {
    return await vmsan.volumes.get(id);
  } catch (error) {
    const none = ["ERR_VOLUME_NOT_FOUND", "ERR_VALIDATION_VOLUME"];
    if (error instanceof VmsanError && none.includes(error.code)) return undefined;
    throw error;
  }
}

/** A volume of the caller's. @throws not_found */
async function find({ vmsan }: VolumeContext, caller: Caller, id: string): Promise<VolumeView> {
  const found = await volumeOf(vmsan, id);
  if (found !== undefined && sees(caller, found)) return found;
  throw new E2bError("not_found", `Volume '${id.slice(0, 128)}' not found`);
}

/** Make a volume. @throws invalid_argument for one of that name, ERR_GATEWAY_QUOTA */
export async function createVolume(
  context: VolumeContext,
  caller: Caller,
  body: unknown,
): Promise<object> {
  const { vmsan, gate } = context;
  const { name } = validate(createSchema, body, "volume");
  const { key } = caller;
  const wanted = { memMib: 0, diskSizeBytes: SIZE_BYTES, isVolume: true };
  const giveBack = gate.quotas.reserve(key, [wanted], await occupied(vmsan, key));
  try {
    const labels = { [PROJECT_LABEL]: key.project, [NAME_LABEL]: name, [KEY_LABEL]: key.id };
    const size = SIZE_BYTES / 2 ** 30;
    const made = await vmsan.volumes.create(hostName(key.project, name), { size, labels });
    return reply(context, caller, made);
  } catch (error) {
    if (!(error instanceof VmsanError) || error.code !== "ERR_VOLUME_NAME_TAKEN") throw error;
    throw new E2bError("invalid_argument", `Volume with name '${name}' already exists`);
  } finally {
    giveBack();
  }
}

/** The caller's volumes by name. */
export async function listVolumes({ vmsan }: VolumeContext, caller: Caller): Promise<object[]> {
  const own = (await vmsan.volumes.list()).filter((volume) => sees(caller, volume));
  return own.map((volume) => ({ volumeID: volume.name, name: nameOf(volume) }));
}

/** One volume, with its token. @throws not_found */
export async function getVolume(
  context: VolumeContext,
  caller: Caller,
  id: string,
): Promise<object> {
  return reply(context, caller, await find(context, caller, id));
}

/** Remove a volume. @throws not_found; failed_precondition while a sandbox mounts it, also one that is paused */
export async function removeVolume(
  context: VolumeContext,
  caller: Caller,
  id: string,
): Promise<void> {
  const { name } = await find(context, caller, id);
  await context.places.without([name], async () => await context.vmsan.volumes.remove(name));
}

/**
 * The volume that a request's token opens.
 * @throws unauthenticated, whether there is none or it is another's; ERR_GATEWAY_RATE
 */
export async function volumeOfToken(
  { vmsan, gate }: VolumeContext,
  request: IncomingMessage,
  id: string,
): Promise<VolumeView> {
  const token = /^bearer +(\S+)$/i.exec(request.headers.authorization ?? "")?.[1] ?? "";
  // Whoever has no token yet makes this host look at one volume, not at all of them.
  const found = await volumeOf(vmsan, id);
  if (found !== undefined) {
    const key = await gate.tokens.bearer(token, "volume", tokenSubject(found));
    if (key !== undefined && sees(gate.pass(request, key), found)) return found;
  }
  throw new E2bError("unauthenticated", "the volume's token is missing or wrong");
}

/**
 * The mounts of a sandbox.
 * @throws invalid_argument for a volume that the caller has not, or a place that cannot be
 */
export async function volumeMounts(
  { vmsan }: Pick<VolumeContext, "vmsan">,
  caller: Caller,
  wishes: readonly VolumeWish[],
): Promise<VolumeMount[]> {
  if (wishes.length === 0) return [];
  const visible = (await vmsan.volumes.list()).filter((volume) => sees(caller, volume));
  return wishes.map(({ name, path }) => {
    // An admin sees others of a name, whose content would not be its own: those are meant by their IDs.
    const isOwn = ({ labels }: VolumeView): boolean => labels[PROJECT_LABEL] === caller.key.project;
    const volume =
      visible.find((one) => isOwn(one) && nameOf(one) === name) ??
      visible.find((one) => one.name === name);
    if (volume === undefined) throw new E2bError("invalid_argument", `volume '${name}' not found`);
    return {
      kind: "volume",
      name: volume.name,
      target: parseTarget(path),
      readonly: false,
      nocopy: true,
    };
  });
}
