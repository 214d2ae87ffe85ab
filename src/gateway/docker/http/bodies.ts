/** Bodies of requests as Docker's own engine reads them: it is written in Go, which does not mind how a key's letters are cased. */
import * as z from "zod";
import { validate } from "../../../schema/api.ts";

/** A schema without what says that it may be left out. */
function bare(schema: z.core.$ZodType): z.core.$ZodType {
  return schema instanceof z.ZodOptional || schema instanceof z.ZodNullable
    ? bare(schema.unwrap())
    : schema;
}

/** A value with its keys as a schema writes them: docker-py sends `detachKeys` for `DetachKeys`. */
function recased(given: z.core.$ZodType, value: unknown): unknown {
  const schema = bare(given);
  if (typeof value !== "object" || value === null) return value;
  if (schema instanceof z.ZodArray && Array.isArray(value)) {
    return value.map((one) => recased(schema.element, one));
  }
  if (Array.isArray(value)) return value;
  if (schema instanceof z.ZodRecord) {
    const entries = Object.entries(value).map(([key, one]) => [
      key,
      recased(schema.valueType, one),
    ]);
    return Object.fromEntries(entries);
  }
  if (!(schema instanceof z.ZodObject)) return value;
  const shape = schema.shape as Record<string, z.core.$ZodType>;
  const known = new Map(Object.keys(shape).map((key) => [key.toLowerCase(), key]));
  const entries = Object.entries(value).map(([key, one]): [string, unknown] => {
    const name = Object.hasOwn(shape, key) ? key : (known.get(key.toLowerCase()) ?? key);
    const within = Object.hasOwn(shape, name) ? shape[name] : undefined;
    return [name, within === undefined ? one : recased(within, one)];
  });
  return Object.fromEntries(entries);
}

/** A request's body by its schema. @param what it is, in the error. @throws 400 */
export function readBody<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  return validate(schema, recased(schema, value), what);
}
