/** How schemas are run: errors that name the field, and absent keys that are absent. */
import type { z } from "zod";
import { VmsanError } from "../model/errors.ts";

/** Run a schema; a mismatch names the first wrong field. */
export function validate<T>(
  schema: z.ZodType<T>,
  value: unknown,
  what: string,
  code = "ERR_VALIDATION_FLAGS",
): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new VmsanError({
    code,
    message: `Invalid ${what}: ${issue?.path.join(".") ?? ""}`,
    why: issue?.message ?? "it has the wrong shape",
    fix: "See docs/api.md for the fields.",
  });
}

/** What `T | undefined` keys become under exactOptionalPropertyTypes: absent. */
export function withoutUndefined<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as T;
}
