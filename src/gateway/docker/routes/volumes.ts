/** Routes below /volumes. */
import { randomBytes } from "node:crypto";
import { VmsanError } from "../../../model/errors.ts";
import { PROJECT_LABEL } from "../../../model/volume.ts";
import type { VolumeView } from "../../../model/volume.ts";
import { volumeSchema } from "../../../schema/docker.ts";
import type { Engine } from "../engine.ts";
import { DockerError } from "../errors.ts";
import { readBody } from "../http/bodies.ts";
import { bodyOf, done, reply } from "../http/route.ts";
import type { Call, Route } from "../http/route.ts";
import { absent } from "./absent.ts";

/** Label of a volume that nobody has given a name. */
const ANONYMOUS = "com.docker.volume.anonymous";

/** A volume as clients see it. */
export function volumeView(volume: VolumeView): object {
  const { name, createdAt, labels, storedBytes, usedBy, shared } = volume;
  return {
    CreatedAt: createdAt,
    Driver: "local",
    Labels: labels,
    // A file system in a file, or a directory that is nobody's but vmsan's.
    Mountpoint: "",
    Name: name,
    Options: shared ? { shared: "true" } : null,
    Scope: "local",
    UsageData: { Size: storedBytes, RefCount: usedBy.length },
  };
}

async function volumeOf({ engine, params }: Call): Promise<VolumeView> {
  const { id = "" } = params;
  try {
    return await engine.vmsan.volumes.get(id);
  } catch (error) {
    const code = error instanceof VmsanError ? error.code : "";
    if (code !== "ERR_VOLUME_NOT_FOUND" && code !== "ERR_VALIDATION_VOLUME") throw error;
    throw new DockerError(404, `get ${id.slice(0, 200)}: no such volume`, error);
  }
}

/** IDs of containers that name a volume, whether they have a VM yet or not. */
function usersOf(engine: Engine, name: string): string[] {
  const names = ({ Name: one }: { Name?: string | undefined }): boolean => one === name;
  return engine.containers.filter(({ record }) => record.mounts.some(names)).map(({ id }) => id);
}

async function create(call: Call): Promise<void> {
  const body = readBody(volumeSchema, await bodyOf(call), "request to create a volume");
  if (!["", "local"].includes(body.Driver ?? "")) {
    throw new DockerError(
      400,
      `there is no volume driver ${body.Driver?.slice(0, 60)}: volumes are local`,
    );
  }
  const { size, shared, ...others } = body.DriverOpts ?? {};
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) {
    throw new DockerError(
      400,
      `volume option ${unknown.slice(0, 60)} is not possible: a volume is a file system of vmsan's own; there are size and shared`,
    );
  }
  if (shared !== undefined && shared !== "true" && shared !== "false") {
    throw new DockerError(400, "volume option shared takes true or false");
  }
  const { volumes } = call.engine.vmsan;
  const name = body.Name || randomBytes(32).toString("hex");
  try {
    const made = await volumes.create(name, {
      labels: { ...body.Labels, ...(body.Name ? {} : { [ANONYMOUS]: "" }) },
      ...(size === undefined ? {} : { size }),
      shared: shared === "true",
    });
    call.engine.events.emit("volume", "create", name, { driver: "local" });
    reply(call, volumeView(made), 201);
  } catch (error) {
    if (!(error instanceof VmsanError) || error.code !== "ERR_VOLUME_NAME_TAKEN") throw error;
    // As with the engine, one that is there is found.
    reply(call, volumeView(await volumes.get(name)), 201);
  }
}

async function remove(call: Call): Promise<void> {
  const { engine, query } = call;
  let name: string;
  try {
    ({ name } = await volumeOf(call));
  } catch (error) {
    if (query.flag("force") && error instanceof DockerError && error.status === 404)
      return done(call);
    throw error;
  }
  const users = usersOf(engine, name);
  if (users.length > 0)
    throw new DockerError(409, `remove ${name}: volume is in use - [${users.join(", ")}]`);
  await engine.vmsan.volumes.remove(name);
  engine.events.emit("volume", "destroy", name, { driver: "local" });
  done(call);
}

async function prune(call: Call): Promise<void> {
  const { engine, query } = call;
  const filters = query.filters().only(["all", "label", "label!"]);
  const removed: string[] = [];
  let freed = 0;
  // Without `all` the engine removes those alone to which nobody has given a name.
  const all = filters.of("all")?.some((value) => ["true", "1"].includes(value)) === true;
  for (const volume of await engine.vmsan.volumes.list()) {
    const { name, usedBy, labels, storedBytes } = volume;
    // Those of keys' projects are not Docker's to prune.
    if (Object.hasOwn(labels, PROJECT_LABEL)) continue;
    if (!all && !Object.hasOwn(labels, ANONYMOUS)) continue;
    if (usedBy.length > 0 || usersOf(engine, name).length > 0 || !filters.allowsLabels(labels))
      continue;
    await engine.vmsan.volumes.remove(name);
    removed.push(name);
    freed += storedBytes;
  }
  reply(call, { VolumesDeleted: removed, SpaceReclaimed: freed });
}

/** The table. */
export const volumeRoutes: readonly Route[] = [
  {
    method: "GET",
    path: "/volumes",
    says: "works",
    run: async (call) => {
      const filters = call.query.filters().only(["dangling", "driver", "label", "name"]);
      const volumes = (await call.engine.vmsan.volumes.list()).filter(
        ({ name, labels }) =>
          filters.allows("name", (wish) => name.includes(wish)) &&
          filters.allows("driver", (wish) => wish === "local") &&
          filters.allows(
            "dangling",
            (wish) => ["true", "1"].includes(wish) === (usersOf(call.engine, name).length === 0),
          ) &&
          filters.allowsLabels(labels),
      );
      reply(call, { Volumes: volumes.map(volumeView), Warnings: null });
    },
  },
  {
    method: "POST",
    path: "/volumes/create",
    says: "differs",
    note: "a file system of its own, 10 GiB unless `-o size=` says otherwise, that one microVM may write to at a time; with `-o shared=true`, or once several containers are to use it, a directory of the host for all of them",
    run: create,
  },
  { method: "POST", path: "/volumes/prune", says: "works", run: prune },
  {
    method: "GET",
    path: "/volumes/:id",
    says: "differs",
    note: "no `Mountpoint`: there is no directory of the host",
    run: async (call) => reply(call, volumeView(await volumeOf(call))),
  },
  { method: "DELETE", path: "/volumes/:id", says: "works", run: remove },
  absent("PUT", "/volumes/:id", "volumes of a cluster are Swarm's"),
];
