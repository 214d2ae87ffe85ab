/** What Docker's engine has and this one has not: each is answered with the reason, and stands in the table of docs/docker.md. */
import { DockerError } from "../errors.ts";
import { reply } from "../http/route.ts";
import type { Route } from "../http/route.ts";

/** A route that is refused. @param status as clients expect it where the engine has no such thing either */
export function absent(
  method: Route["method"],
  path: string,
  note: string,
  { status = 501, said = note }: { status?: number; said?: string } = {},
): Route {
  return {
    method,
    path,
    says: "refused",
    note,
    run: async ({ request }) => {
      request.resume();
      await Promise.reject(new DockerError(status, said));
    },
  };
}

const NO_SWARM = {
  status: 503,
  // Its beginning is what clients know an engine without Swarm by.
  said: "This node is not a swarm manager, and cannot be one: vmsan has no Swarm. Use docker compose, or a cluster (docs/cluster.md).",
};

const swarm = (method: Route["method"], path: string): Route =>
  absent(method, path, "there is no Swarm", NO_SWARM);

/** A kind of thing that Swarm keeps: listed, made, looked at, changed, removed. */
const kept = (kind: string): Route[] => [
  swarm("GET", `/${kind}`),
  swarm("POST", `/${kind}/create`),
  swarm("GET", `/${kind}/:id`),
  swarm("POST", `/${kind}/:id/update`),
  swarm("DELETE", `/${kind}/:id`),
];

/** The table of Swarm. */
export const swarmRoutes: readonly Route[] = [
  swarm("GET", "/swarm"),
  swarm("POST", "/swarm/init"),
  swarm("POST", "/swarm/join"),
  swarm("POST", "/swarm/leave"),
  swarm("POST", "/swarm/update"),
  swarm("GET", "/swarm/unlockkey"),
  swarm("POST", "/swarm/unlock"),
  swarm("GET", "/nodes"),
  swarm("GET", "/nodes/:id"),
  swarm("POST", "/nodes/:id/update"),
  swarm("DELETE", "/nodes/:id"),
  ...kept("services"),
  swarm("GET", "/services/:id/logs"),
  swarm("GET", "/tasks"),
  swarm("GET", "/tasks/:id"),
  swarm("GET", "/tasks/:id/logs"),
  ...kept("secrets"),
  ...kept("configs"),
];

const plugin = (method: Route["method"], path: string, status = 501): Route =>
  absent(method, path, "plugins run on the host, beside the engine", { status });

/** The table of plugins. */
export const pluginRoutes: readonly Route[] = [
  {
    method: "GET",
    path: "/plugins",
    says: "works",
    note: "there are none",
    run: async (call) => await Promise.resolve(reply(call, [])),
  },
  plugin("GET", "/plugins/privileges"),
  plugin("POST", "/plugins/pull"),
  plugin("POST", "/plugins/create"),
  // `docker inspect` asks for any kind of thing, and goes on at 404.
  plugin("GET", "/plugins/:name/json", 404),
  plugin("POST", "/plugins/:name/enable"),
  plugin("POST", "/plugins/:name/disable"),
  plugin("POST", "/plugins/:name/upgrade"),
  plugin("POST", "/plugins/:name/push"),
  plugin("POST", "/plugins/:name/set"),
  plugin("DELETE", "/plugins/:name"),
];

const CHECKPOINT = "a microVM's state is kept by `vmsan snapshot`";

/** The table of checkpoints, which Docker has as an experiment. */
export const checkpointRoutes: readonly Route[] = [
  absent("GET", "/containers/:id/checkpoints", CHECKPOINT),
  absent("POST", "/containers/:id/checkpoints", CHECKPOINT),
  absent("DELETE", "/containers/:id/checkpoints/:checkpoint", CHECKPOINT),
];
