/** Nodes of a cluster, as far as others of them look at them. */
import * as z from "zod";

const nodeSchema = z.object({
  metadata: z.object({ name: z.string() }),
  status: z
    .object({
      conditions: z.array(z.object({ type: z.string(), status: z.string() })).nullish(),
      addresses: z.array(z.object({ type: z.string(), address: z.string() })).nullish(),
      daemonEndpoints: z
        .object({ kubeletEndpoint: z.object({ Port: z.number().int() }).nullish() })
        .nullish(),
      images: z.array(z.object({ names: z.array(z.string()).nullish() })).nullish(),
    })
    .nullish(),
});

/** A list of nodes. */
export const nodeListSchema = z.object({ items: z.array(nodeSchema) });

/** One of it. */
export type ListedNode = z.output<typeof nodeSchema>;
