/** What lists and watches of Kubernetes' API are made of; objects in them are read by whoever wants them. */
import * as z from "zod";

const metadata = z.looseObject({ resourceVersion: z.string().max(200).optional() });

/** A list. */
export const listSchema = z.looseObject({
  metadata,
  items: z.array(z.looseObject({})).nullish(),
});

/** A request for a certificate, as far as it has come. */
export const certificateRequestSchema = z.looseObject({
  status: z
    .looseObject({
      certificate: z.string().nullish(),
      conditions: z
        .array(
          z.looseObject({
            type: z.string(),
            reason: z.string().nullish(),
            message: z.string().nullish(),
          }),
        )
        .nullish(),
    })
    .nullish(),
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
