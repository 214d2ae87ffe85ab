/** What a caller says about reaching registries. */
import { z } from "zod";
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

/** Part of every request that may reach a registry. */
export const registryAccessSchema = z
  .strictObject({
    caFile: path.optional(),
    env: z.partialRecord(z.enum(REGISTRY_VARIABLES), value).optional(),
  })
  .transform(({ caFile, env }): RegistryAccess => ({
    ...(caFile === undefined ? {} : { caFile }),
    ...(env === undefined ? {} : { env: Object.fromEntries(Object.entries(env)) }),
  }));
