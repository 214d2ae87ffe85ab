/** The query of those who ask for events. */
import { z } from "zod";
import type { EventFilter } from "../model/event.ts";
import { validate } from "./api.ts";

const word = z.string().min(1).max(63);
const one = <T extends z.ZodType>(item: T): z.ZodType<z.infer<T>[] | undefined> =>
  z.array(item).max(1).optional();

const querySchema = z.strictObject({
  since: one(z.string().regex(/^\d{1,16}$/, "must be an event's number")),
  after: one(z.iso.datetime()),
  follow: one(z.enum(["true", "false"])),
  type: z.array(word).max(50).optional(),
  vm: z.array(word).max(100).optional(),
  project: one(z.string().max(63)),
});

/** What somebody asks for. */
export interface EventQuery {
  /** Number after which events are wanted; 0: all that are kept. */
  since?: number;
  /** ISO 8601 time from which on they are wanted. */
  after?: string;
  follow: boolean;
  filter: EventFilter;
}

/** Read a query. @throws ERR_VALIDATION_FLAGS */
export function parseEventQuery(query: Record<string, string[]>): EventQuery {
  const { since, after, follow, type, vm, project } = validate(
    querySchema,
    query,
    "query for events",
  );
  return {
    ...(since?.[0] === undefined ? {} : { since: Number(since[0]) }),
    // As events' own times are written, so that texts compare as times do.
    ...(after?.[0] === undefined ? {} : { after: new Date(after[0]).toISOString() }),
    follow: follow?.[0] === "true",
    filter: {
      ...(type === undefined ? {} : { types: type }),
      ...(vm === undefined ? {} : { vms: vm }),
      ...(project?.[0] === undefined ? {} : { project: project[0] }),
    },
  };
}
