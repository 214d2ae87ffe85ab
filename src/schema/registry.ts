/** What a caller says about reaching registries. */
import * as z from "zod";
import type { RegistryAccess } from "../model/api.ts";
import { REGISTRY_VARIABLES } from "../util/registry-env.ts";

const path = z
  .string()
  .max(4096)
  .regex(/^\/[^\0]*$/, "must be an absolute path");

/** One line, as an environment may hold it; PATH and NO_PROXY may be long. */
const value = z
  .string()
  .max(32_768)
  .regex(/^[^\0\r\n]*$/, "must be one line");

const pem = z.string().max(64 << 10);

/** Most hosts that are asked for one blob. */
const MAX_PEERS = 8;

const peers = z.strictObject({
  hosts: z
    .array(z.string().regex(/^(?:[a-zA-Z0-9.-]{1,253}|\[[0-9a-fA-F:]{2,45}\]):\d{1,5}$/))
    .max(MAX_PEERS),
  ca: pem,
  cert: pem,
  key: pem,
});

/** Part of every request that may reach a registry. */
export const registryAccessSchema = z
  .strictObject({
    caFile: path.optional(),
    env: z.partialRecord(z.enum(REGISTRY_VARIABLES), value).optional(),
    peers: peers.optional(),
  })
  .transform(({ caFile, env, peers: hosts }): RegistryAccess => ({
    ...(caFile === undefined ? {} : { caFile }),
    ...(hosts === undefined ? {} : { peers: hosts }),
    ...(env === undefined ? {} : { env: Object.fromEntries(Object.entries(env)) }),
  }));
