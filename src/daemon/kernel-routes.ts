/** Routes about guest kernels. */
import type { Hono } from "hono";
import * as z from "zod";
import type { KernelRequest } from "../model/api/kernels.ts";
import type { Host } from "../sandbox/host.ts";
import { chooseKernel, dropKernel, keepKernel, kernelList } from "../sandbox/kernels.ts";
import type { Sandboxes } from "../sandbox/sandboxes.ts";
import { validate } from "../schema/api.ts";
import { jsonBody } from "../http/reply.ts";

const path = z.string().max(4096).startsWith("/");
const addSchema = z.strictObject({ file: path, modulesDir: path.optional() });
const useSchema = z.strictObject({ id: z.string().min(1).max(128) });

/** Add the routes below /v1/kernels. */
export function kernelRoutes(app: Hono, host: Host, sandboxes: Sandboxes): void {
  const dir = host.layout.kernels;

  app.get("/v1/kernels", async (c) => c.json(await kernelList(dir, sandboxes.users())));

  app.post("/v1/kernels", async (c) => {
    const { file, modulesDir } = validate(addSchema, await jsonBody(c), "kernel");
    const request: KernelRequest = { file, ...(modulesDir === undefined ? {} : { modulesDir }) };
    return c.json(await keepKernel(dir, request, sandboxes.users(), c.req.raw.signal));
  });

  app.post("/v1/kernels/use", async (c) => {
    const { id } = validate(useSchema, await jsonBody(c), "choice of a kernel");
    return c.json(await chooseKernel(dir, id, sandboxes.users()));
  });

  app.delete("/v1/kernels/:id", async (c) => {
    await dropKernel(dir, c.req.param("id"), sandboxes.users());
    return c.body(null, 204);
  });
}
