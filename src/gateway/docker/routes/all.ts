/** All routes: what is served, and what docs/docker.md says of it. */
import { compile } from "../http/route.ts";
import type { CompiledRoute, Route } from "../http/route.ts";
import { checkpointRoutes, pluginRoutes, swarmRoutes } from "./absent.ts";
import { containerRoutes } from "./containers.ts";
import { execRoutes } from "./execs.ts";
import { imageRoutes } from "./images.ts";
import { networkRoutes } from "./networks.ts";
import { systemRoutes } from "./system.ts";
import { volumeRoutes } from "./volumes.ts";

/** By what they are about. */
export const dockerRoutes: Record<string, readonly Route[]> = {
  Containers: [...containerRoutes, ...checkpointRoutes],
  Commands: execRoutes,
  Images: imageRoutes,
  Volumes: volumeRoutes,
  Networks: networkRoutes,
  System: systemRoutes,
  Plugins: pluginRoutes,
  Swarm: swarmRoutes,
};

const compiled: readonly CompiledRoute[] = Object.values(dockerRoutes).flat().map(compile);

/** The route for a call, and the parts of its path; undefined: there is none. */
export function routeFor(
  method: string,
  path: string,
): { route: Route; params: Record<string, string> } | undefined {
  for (const { route, pattern } of compiled) {
    if (route.method !== method) continue;
    const match = pattern.exec(path);
    if (match !== null) return { route, params: { ...match.groups } };
  }
  return undefined;
}
