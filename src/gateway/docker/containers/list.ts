/** Which containers a list has. */
import type { Engine } from "../engine.ts";
import { DockerError } from "../errors.ts";
import type { Filters } from "../http/filters.ts";
import { familiar, repositoryOf, withTag } from "../images/names.ts";
import type { Container } from "./container.ts";

/** Filters of lists of containers. */
export const CONTAINER_FILTERS = [
  "ancestor",
  "before",
  "exited",
  "expose",
  "health",
  "id",
  "is-task",
  "isolation",
  "label",
  "name",
  "network",
  "publish",
  "since",
  "status",
  "volume",
];

/** A name's pattern: part of it, or a regular expression; a slash stands before names. */
function matchesName(pattern: string, name: string): boolean {
  try {
    // Bounded: names have at most 200 characters.
    const expression = new RegExp(pattern.slice(0, 200));
    return expression.test(name) || expression.test(`/${name}`);
  } catch {
    // No expression: a part of the name then.
    return name.includes(pattern);
  }
}

function isOfImage(container: Container, wish: string): boolean {
  const { image, config } = container.record;
  const names = [config.Image, familiar(image.name)];
  const id = wish.replace(/^sha256:/, "");
  return (
    names.some((name) => withTag(name) === withTag(wish) || repositoryOf(name) === wish) ||
    (/^[0-9a-f]{4,64}$/.test(id) && image.id.startsWith(`sha256:${id}`))
  );
}

/** Whether a port is among `80`, `80/tcp`, `80-90/udp`. */
function isPort(wish: string, port: number, protocol: string): boolean {
  const match = /^(\d+)(?:-(\d+))?(?:\/(\w+))?$/.exec(wish);
  if (match === null) return false;
  const from = Number(match[1]);
  return port >= from && port <= Number(match[2] ?? from) && (match[3] ?? "tcp") === protocol;
}

/** Whether a container is among those asked for. @throws 400, 404 */
export function isListed(
  container: Container,
  filters: Filters,
  all: boolean,
  engine: Engine,
): boolean {
  const { record } = container;
  const { state } = record;
  // As with Docker, one that is about to be started again runs.
  const runs = container.active || container.status === "restarting";
  const status = filters.of("status");
  const exited = filters.of("exited");
  for (const wish of status ?? []) {
    if (
      !["created", "running", "paused", "restarting", "removing", "exited", "dead"].includes(wish)
    ) {
      throw new DockerError(400, `invalid filter 'status=${wish.slice(0, 60)}'`);
    }
  }
  if (!all && status === undefined && exited === undefined && !runs) return false;
  const age = (ref: string): number => Date.parse(engine.find(ref).record.createdAt);
  const own = Date.parse(record.createdAt);
  const health = container.health.state?.Status ?? "none";
  return (
    filters.allows("status", (wish) => container.status === wish) &&
    filters.allows(
      "exited",
      (wish) => container.status === "exited" && state.exitCode === Number(wish),
    ) &&
    filters.allows("id", (wish) => record.id.startsWith(wish)) &&
    filters.allows("name", (wish) => matchesName(wish, record.name)) &&
    filters.allows("ancestor", (wish) => isOfImage(container, wish)) &&
    filters.allows("before", (wish) => own < age(wish)) &&
    filters.allows("since", (wish) => own > age(wish)) &&
    filters.allows("health", (wish) => health === wish) &&
    filters.allows("is-task", (wish) => wish === "false") &&
    filters.allows("volume", (wish) =>
      record.mounts.some(({ Name, Destination }) => Name === wish || Destination === wish),
    ) &&
    filters.allows("network", (wish) =>
      Object.entries(record.networks).some(
        ([name, { id }]) => name === wish || id.startsWith(wish),
      ),
    ) &&
    filters.allows("publish", (wish) =>
      record.ports.some(({ hostPort, protocol }) => isPort(wish, hostPort, protocol)),
    ) &&
    filters.allows("expose", (wish) =>
      Object.keys(record.config.ExposedPorts).some((port) => {
        const [number, protocol = "tcp"] = port.split("/");
        return isPort(wish, Number(number), protocol);
      }),
    ) &&
    filters.allowsLabels(record.config.Labels)
  );
}

/** Whether a container is on a network. */
export function isOn(container: Container, networkId: string): boolean {
  return Object.values(container.record.networks).some(({ id }) => id === networkId);
}
