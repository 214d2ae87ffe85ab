/**
 * reaper/: what a container is given that mounts the engine's own socket, as the reaper of testcontainers (Ryuk) does. With the
 * socket itself it could do all that its owner may, mount the host's directories for one. Here it lists and removes what
 * testcontainers has made, and nothing else. Takes connections from guests in relay.ts; the lists and removals are the engine's.
 *
 * scope.ts: which requests are passed on, and how they are narrowed.
 */
import type { IncomingMessage } from "node:http";
import type { Engine } from "../engine.ts";
import { DockerError } from "../errors.ts";
import { parseFilters } from "../http/filters.ts";
import { decoded } from "../http/wire.ts";

/** On all that testcontainers makes, in every language. */
export const TESTCONTAINERS = "org.testcontainers";

/** What is said of all else. */
export const NOTHING_ELSE =
  "through this socket a container lists and removes what testcontainers has made, and nothing else";

/** How the compose projects of testcontainers begin, whose things have compose's labels alone. */
const PROJECT_LABEL = "com.docker.compose.project";
const PROJECT = /^testcontainers-/;

/** Whether something with these labels is testcontainers'. */
function isTheirs(labels: Record<string, string>): boolean {
  return Object.hasOwn(labels, TESTCONTAINERS) || PROJECT.test(labels[PROJECT_LABEL] ?? "");
}

const LISTS = new Set(["/containers/json", "/networks", "/volumes", "/images/json"]);

/** Labels of what a path names, by the kind of thing. @throws 404 */
const LABELS: Record<
  string,
  (engine: Engine, name: string) => Promise<Record<string, string>> | Record<string, string>
> = {
  containers: (engine, name) => engine.find(name).record.config.Labels,
  networks: async (engine, name) => (await engine.networks.find(name)).Labels,
  volumes: async (engine, name) => (await engine.vmsan.volumes.get(name)).labels,
  images: async (engine, name) => (await engine.catalogue.find(name)).details.config.labels,
};

/** A list's query, narrowed to what is testcontainers': its own wish where that is, else with their label. */
function narrowed(query: URLSearchParams): string {
  const filters = parseFilters(query.get("filters"));
  const projects = (filters.of("label") ?? [])
    .filter((label) => label.startsWith(`${PROJECT_LABEL}=`))
    .map((label) => label.slice(PROJECT_LABEL.length + 1));
  if (!projects.some((project) => PROJECT.test(project))) {
    query.set("filters", filters.withLabel(TESTCONTAINERS));
  }
  return query.toString();
}

/** The path and query that a request is passed on with. @throws 403 for all else, 404 */
export async function scoped(engine: Engine, { method, url }: IncomingMessage): Promise<string> {
  const { pathname, searchParams } = new URL(url ?? "/", "http://engine");
  const path = pathname.replace(/^\/v\d+\.\d+(?=\/)/, "");
  if (path === "/_ping" && (method === "GET" || method === "HEAD")) return path;
  if (path === "/version" && method === "GET") return path;
  if (method === "GET" && LISTS.has(path)) return `${path}?${narrowed(searchParams)}`;
  const [, kind = "", name = ""] = /^\/([a-z]+)\/(.+)$/.exec(path) ?? [];
  const labelsOf = Object.hasOwn(LABELS, kind) ? LABELS[kind] : undefined;
  if (method === "DELETE" && labelsOf !== undefined) {
    const labels = await labelsOf(engine, decoded(name));
    if (isTheirs(labels)) return `${path}?${searchParams.toString()}`;
  }
  throw new DockerError(403, NOTHING_ELSE);
}
