/** Routes about private networks. */
import type { Hono } from "hono";
import { jsonBody } from "../http/reply.ts";
import type { PrivateNetworks } from "../sandbox/private-networks.ts";
import { parseMembership, parsePrivateNetworkRequest } from "../schema/private-networks.ts";

/** Add the routes below /v1/networks. */
export function privateNetworkRoutes(app: Hono, networks: PrivateNetworks): void {
  app.get("/v1/networks", (c) => c.json({ networks: networks.list() }));

  app.post("/v1/networks", async (c) =>
    c.json(await networks.create(parsePrivateNetworkRequest(await jsonBody(c)))),
  );

  app.post("/v1/networks/prune", async (c) => c.json(await networks.prune()));

  app.get("/v1/networks/:name", (c) => c.json(networks.get(c.req.param("name"))));

  app.delete("/v1/networks/:name", async (c) => {
    await networks.remove(c.req.param("name"));
    return c.body(null, 204);
  });

  app.put("/v1/networks/:name/members/:vm", async (c) => {
    const { name, vm } = c.req.param();
    return c.json(await networks.connect(vm, parseMembership(name, await jsonBody(c))));
  });

  app.delete("/v1/networks/:name/members/:vm", async (c) => {
    const { name, vm } = c.req.param();
    await networks.disconnect(vm, name);
    return c.body(null, 204);
  });
}
