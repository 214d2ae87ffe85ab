/** Routes about private networks: a key sees and changes those of its project, for VMs of its project. */
import * as z from "zod";
import { jsonBody } from "../../http/reply.ts";
import type { Vmsan } from "../../client/vmsan.ts";
import { VmsanError } from "../../model/errors.ts";
import type { PrivateNetworkView } from "../../model/private-network.ts";
import {
  parseMembership,
  parsePrivateNetworkRequest,
  placeSchema,
  privateNetworkSchema,
} from "../../schema/private-networks.ts";
import type { Caller } from "../access/gate.ts";
import { vmOf } from "./own-vm.ts";
import type { Route, RouteContext } from "./route.ts";

/** Most networks of a project: the host's ranges are for all. */
const MAX_IN_PROJECT = 32;

const memberSchema = z.strictObject({
  id: z.string(),
  name: z.string().optional(),
  address: z.string(),
  aliases: z.array(z.string()),
  connected: z.boolean(),
});

/** What the API shows of a network. */
const networkSchema = z.strictObject({
  name: z.string(),
  createdAt: z.string(),
  project: z.string(),
  labels: z.record(z.string(), z.string()),
  subnet: z.string(),
  members: z.array(memberSchema),
  damaged: z.string().optional(),
});

const isOwn = (caller: Caller, { project }: PrivateNetworkView): boolean =>
  caller.key.admin || project === caller.key.project;

/** No network of that name, or none that the caller may see. */
function notFound(name: string): VmsanError {
  return new VmsanError({
    code: "ERR_PRIVATE_NETWORK_NOT_FOUND",
    message: `No private network ${name}`,
    why: "No network has that name.",
    fix: "Make it first: POST /v1/networks.",
  });
}

/** A network that the caller may see. @throws ERR_PRIVATE_NETWORK_NOT_FOUND */
async function ownNetwork(vmsan: Vmsan, caller: Caller, name: string): Promise<PrivateNetworkView> {
  const network = await vmsan.networks.get(name);
  if (!isOwn(caller, network)) throw notFound(name);
  return network;
}

/** Refuse networks that the caller may not see. @throws ERR_PRIVATE_NETWORK_NOT_FOUND */
export async function checkNetworks(
  vmsan: Vmsan,
  caller: Caller,
  names: readonly string[],
): Promise<void> {
  for (const name of names) await ownNetwork(vmsan, caller, name);
}

const nameOf = ({ c }: RouteContext): string => c.req.param("name") ?? "";

/** Make a network of the caller's project. */
async function create({ c, caller, vmsan }: RouteContext): Promise<Response> {
  const { name, ...request } = parsePrivateNetworkRequest(await jsonBody(c));
  const { key } = caller;
  if (!key.admin) {
    const all = await vmsan.networks.list();
    if (all.filter((network) => isOwn(caller, network)).length >= MAX_IN_PROJECT) {
      throw new VmsanError({
        code: "ERR_GATEWAY_QUOTA",
        message: `The project ${key.project} may not have more private networks`,
        why: `Its limit is ${MAX_IN_PROJECT}.`,
        fix: "Remove networks that are not needed any more.",
      });
    }
  }
  const project = key.admin && request.project !== "" ? request.project : key.project;
  return c.json(await vmsan.networks.create(name, { ...request, project }));
}

/** The routes below /v1/networks. */
export const networkRoutes: readonly Route[] = [
  {
    method: "GET",
    path: "/v1/networks",
    summary: "Private networks of the key's project",
    answers: "json",
    reply: z.strictObject({ networks: z.array(networkSchema) }),
    run: async ({ c, caller, vmsan }) => {
      const all = await vmsan.networks.list();
      return c.json({ networks: all.filter((network) => isOwn(caller, network)) });
    },
  },
  {
    method: "POST",
    path: "/v1/networks",
    summary: "Make a private network: VMs in it reach each other",
    body: privateNetworkSchema,
    answers: "json",
    reply: networkSchema,
    run: create,
  },
  {
    method: "POST",
    path: "/v1/networks/prune",
    summary: "Remove all private networks that no VM is in",
    admin: true,
    answers: "json",
    reply: z.strictObject({ networks: z.array(z.string()) }),
    run: async ({ c, vmsan }) => c.json(await vmsan.networks.prune()),
  },
  {
    method: "GET",
    path: "/v1/networks/:name",
    summary: "One private network, with its members' addresses",
    answers: "json",
    reply: networkSchema,
    run: async (context) =>
      context.c.json(await ownNetwork(context.vmsan, context.caller, nameOf(context))),
  },
  {
    method: "DELETE",
    path: "/v1/networks/:name",
    summary: "Remove a private network that no VM is in",
    answers: "nothing",
    run: async (context) => {
      const { name } = await ownNetwork(context.vmsan, context.caller, nameOf(context));
      await context.vmsan.networks.remove(name);
      return context.c.body(null, 204);
    },
  },
  {
    method: "PUT",
    path: "/v1/networks/:name/members/:vm",
    summary: "Put a VM into a private network, also a running one",
    body: placeSchema,
    answers: "json",
    reply: networkSchema,
    run: async (context) => {
      const { c, caller, vmsan } = context;
      const place = parseMembership(nameOf(context), await jsonBody(c));
      const { network, ...options } = place;
      await checkNetworks(vmsan, caller, [network]);
      const { id } = await vmOf(context);
      return c.json(await vmsan.networks.connect(network, id, options));
    },
  },
  {
    method: "DELETE",
    path: "/v1/networks/:name/members/:vm",
    summary: "Take a VM out of a private network",
    answers: "nothing",
    run: async (context) => {
      const { c, caller, vmsan } = context;
      const { name } = await ownNetwork(vmsan, caller, nameOf(context));
      const { id } = await vmOf(context);
      await vmsan.networks.disconnect(name, id);
      return c.body(null, 204);
    },
  },
];
