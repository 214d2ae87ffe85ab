/** Events as they are stored, and the query of those who ask for them. */
import * as z from "zod";
import type { EventFilter, VmsanEvent } from "../model/event.ts";
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

const headSchema = z.object({ version: z.literal(1), bootId: z.string() });
const eventSchema = z.object({
  seq: z.int().min(1),
  time: z.iso.datetime(),
  // Written by a daemon of another version it may be one that is not known here.
  type: word,
  vm: z.object({ id: word, name: word.optional() }).optional(),
  project: z.string().optional(),
  data: z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.array(z.string())])),
});

/** A line of the daemon's journal: its head, or an event; undefined for one that is neither, or cut short. */
export function parseJournalLine(
  line: string,
): { bootId?: string; event?: VmsanEvent } | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    // The last line of a process that was killed.
    return undefined;
  }
  const head = headSchema.safeParse(value);
  if (head.success) return { bootId: head.data.bootId };
  const event = eventSchema.safeParse(value);
  return event.success ? { event: event.data as VmsanEvent } : undefined;
}
