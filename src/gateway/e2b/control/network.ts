/** What a sandbox may reach, as E2B's clients say it. */
import { isIP } from "node:net";
import * as z from "zod";
import { E2bError } from "../errors.ts";

const list = z.array(z.string().max(255)).max(1000);

/** The network object of a sandbox. */
export const networkSchema = z.object({
  allowOut: list.nullish(),
  denyOut: list.nullish(),
  allowPublicTraffic: z.boolean().nullish(),
  // It becomes a header as it is.
  maskRequestHost: z
    .string()
    .regex(/^[\x21-\x7e]{1,255}$/)
    .nullish(),
  rules: z.record(z.string(), z.unknown()).nullish(),
  egressProxy: z.unknown().optional(),
});

/** The network object of a running sandbox that is changed. */
export const updateSchema = networkSchema.extend({ allow_internet_access: z.boolean().nullish() });

/** What the object says. */
export type NetworkWish = z.infer<typeof networkSchema>;

const EVERYTHING = new Set(["0.0.0.0/0", "::/0"]);

/** Whether an entry is an address or a block of them. */
function isCidr(entry: string): boolean {
  return isIP(entry.split("/", 1)[0] ?? "") !== 0;
}

/**
 * A policy for it: what is allowed wins over what is denied.
 * @throws invalid_argument for what cannot be kept
 */
export function networkPolicy(internet: boolean, wish: NetworkWish): object {
  const { rules, egressProxy } = wish;
  if (Object.keys(rules ?? {}).length > 0) {
    throw new E2bError("unimplemented", "network rules that change requests are not offered", 400);
  }
  if (egressProxy !== undefined && egressProxy !== null) {
    throw new E2bError("unimplemented", "an egress proxy is not offered", 400);
  }
  const allow = wish.allowOut ?? [];
  const deny = wish.denyOut ?? [];
  const named = deny.find((entry) => !isCidr(entry));
  if (named !== undefined) {
    throw new E2bError("invalid_argument", `denyOut takes addresses and blocks, not ${named}`);
  }
  const denyAll = !internet || deny.some((entry) => EVERYTHING.has(entry));
  if (denyAll && allow.length === 0) return { mode: "deny-all" };
  if (!denyAll && deny.length === 0) return { mode: "allow-all" };
  const cidrs = allow.filter(isCidr);
  return {
    mode: "custom",
    allowedDomains: allow.filter((entry) => !isCidr(entry)),
    allowedCidrs: denyAll ? cidrs : [...cidrs, "0.0.0.0/0"],
    deniedCidrs: denyAll ? [] : deny,
  };
}
