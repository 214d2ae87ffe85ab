/** Bodies of the HTTP API that are about private networks. */
import * as z from "zod";
import type { MembershipRequest, PrivateNetworkRequest } from "../model/private-network.ts";
import { MAX_ALIASES, parseAlias, parseNetworkName } from "../util/names.ts";
import { validate, withoutUndefined } from "./validate.ts";

const name = z.string().max(128);
const aliases = z.array(z.string().max(253)).max(MAX_ALIASES).default([]);

/** The body of `POST /v1/networks`. */
export const privateNetworkSchema = z.strictObject({
  name,
  project: z.string().max(256).default(""),
  labels: z.record(z.string().max(256), z.string().max(4096)).default({}),
  subnet: z.string().max(18).optional(),
});

/** The body of `PUT /v1/networks/NAME/members/VM`. */
export const placeSchema = z.strictObject({ aliases, address: z.ipv4().optional() });

/** A network that a VM to be made shall be in; names themselves are checked by util/names.ts. */
export const membershipSchema = placeSchema.extend({ network: name });

/** Names as they are kept. @throws ERR_VALIDATION_NETWORK */
export function checkMemberships(
  networks: readonly z.output<typeof membershipSchema>[],
): MembershipRequest[] {
  return networks.map((each) => ({
    ...(withoutUndefined(each) as MembershipRequest),
    network: parseNetworkName(each.network),
    aliases: each.aliases.map(parseAlias),
  }));
}

/** A network to be made. */
export function parsePrivateNetworkRequest(body: unknown): PrivateNetworkRequest {
  const what = "request to make a private network";
  const request = withoutUndefined(validate(privateNetworkSchema, body, what));
  parseNetworkName(request.name);
  return request as PrivateNetworkRequest;
}

/** A VM's place in a network. @throws ERR_VALIDATION_NETWORK */
export function parseMembership(network: string, body: unknown): MembershipRequest {
  const place = validate(placeSchema, body, "place in a private network");
  const [membership] = checkMemberships([{ ...place, network }]);
  if (membership === undefined) throw new TypeError("one in, one out");
  return membership;
}
