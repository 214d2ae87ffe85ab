/** What lists and watches of Kubernetes' API are made of; objects in them are read by whoever wants them. */
import { z } from "zod";

const metadata = z.looseObject({ resourceVersion: z.string().max(200).optional() });

/** A list. */
export const listSchema = z.looseObject({
  metadata,
  items: z.array(z.looseObject({})).nullish(),
});

/** A line of a watch. */
export const watchEventSchema = z.looseObject({
  type: z.string(),
  object: z.looseObject({
    metadata: metadata.optional(),
    code: z.number().optional(),
    message: z.string().optional(),
  }),
});
