/** Making a container: a document, and no VM yet. */
import { randomBytes, randomInt } from "node:crypto";
import { VmsanError } from "../../../../model/errors.ts";
import type { z } from "zod";
import { containerSchema } from "../../../../schema/docker.ts";
import type { ContainerBody, ContainerRecord, endpointSchema } from "../../../../schema/docker.ts";
import type { Engine } from "../../engine.ts";
import { DockerError, refused } from "../../errors.ts";
import { readBody } from "../../http/bodies.ts";
import type { KnownImage } from "../../images/catalogue.ts";
import { isReference } from "../../images/names.ts";
import type { Network } from "../../networks/networks.ts";
import { logLimitsOf } from "../../logs/limits.ts";
import { TESTCONTAINERS } from "../../reaper/scope.ts";
import { configOf } from "./config.ts";
import { NEVER } from "../life/life.ts";
import type { Container } from "../container.ts";
import { checkRestartPolicy, machineOf, networkModeOf, recordedHost } from "./host-config.ts";
import { makeDirectories, plannedMounts } from "./mounts.ts";
import type { PlannedMount } from "./mounts.ts";
import { portWishes } from "./ports.ts";
import { architectureOf } from "../../../../util/hosts/architecture.ts";

const NAME = /^\/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

const FIRST =
  "amber brisk calm dapper eager fuzzy gentle humble ivory jolly keen lively mellow nimble quiet rapid sunny tidy vivid witty".split(
    " ",
  );
const SECOND =
  "badger crane dingo egret ferret gecko heron ibis jackal koala lemur marten newt otter puffin quail raven stoat tapir wombat".split(
    " ",
  );

/** A name that nobody has. */
function inventName(engine: Engine): string {
  const pick = (words: readonly string[]): string => words[randomInt(words.length)] ?? "";
  for (let attempt = 0; attempt < 20; attempt += 1) {
    const name = `${pick(FIRST)}_${pick(SECOND)}${attempt > 5 ? randomInt(10_000) : ""}`;
    if (engine.named(name) === undefined) return name;
  }
  return `container_${randomBytes(6).toString("hex")}`;
}

/** A name that may be given. @throws 400, 409 */
export function checkName(engine: Engine, text: string): string {
  if (!NAME.test(text) || text.length > 200) {
    throw new DockerError(
      400,
      `Invalid container name (${text.slice(0, 100)}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`,
    );
  }
  const name = text.replace(/^\//, "");
  const holder = engine.named(name);
  if (holder === undefined) return name;
  throw new DockerError(
    409,
    `Conflict. The container name "/${name}" is already in use by container "${holder.id}". You have to remove (or rename) that container to be able to reuse that name.`,
  );
}

type Endpoint = z.infer<typeof endpointSchema> | null | undefined;

/** What is recorded of a container's place in a network. @throws 400 */
export function placeIn(
  network: Network,
  wish: Endpoint,
  id: string,
): ContainerRecord["networks"][string] {
  const { Id, builtIn, Internal: internal } = network;
  const aliases = builtIn ? [] : [...new Set([...(wish?.Aliases ?? []), id.slice(0, 12)])];
  const driverOpts = wish?.DriverOpts ?? undefined;
  const { IPv4Address: address, IPv6Address: address6 } = wish?.IPAMConfig ?? {};
  if (address6) throw refused("--ip6", "networks that users make are IPv4.");
  return {
    aliases,
    id: Id,
    internal,
    ...(address ? { address } : {}),
    ...(driverOpts === undefined ? {} : { driverOpts }),
  };
}

/** A network for a new container. @throws 400 where there is none: at 404 clients pull the image, and say that of that */
async function existing(engine: Engine, name: string): Promise<Network> {
  try {
    return await engine.networks.find(name);
  } catch (error) {
    if (!(error instanceof DockerError) || error.status !== 404) throw error;
    throw new DockerError(400, error.message, error);
  }
}

/** The networks that a container is to be on. @throws 400 */
async function networksOf(
  engine: Engine,
  body: ContainerBody,
  id: string,
): Promise<ContainerRecord["networks"]> {
  const mode = networkModeOf(body.HostConfig?.NetworkMode);
  const wishes = Object.entries(body.NetworkingConfig?.EndpointsConfig ?? {});
  const wishOf = (name: string): Endpoint =>
    wishes.find(([key]) => networkModeOf(key) === name)?.[1];
  const names = new Set([mode, ...wishes.map(([name]) => networkModeOf(name))]);
  if (mode === "none") names.clear();
  names.delete("none");
  const networks: ContainerRecord["networks"] = {};
  for (const name of names) {
    const network = await existing(engine, name);
    networks[network.Name] = placeIn(network, wishOf(name), id);
  }
  if (mode === "none") {
    networks["none"] = placeIn(await engine.networks.find("none"), undefined, id);
  }
  return networks;
}

/** Have the volumes that a container names. */
async function makeVolumes(engine: Engine, planned: readonly PlannedMount[]): Promise<void> {
  for (const { point, labels } of planned) {
    if (point.Type !== "volume" || point.Name === undefined) continue;
    try {
      await engine.vmsan.volumes.create(point.Name, labels === undefined ? {} : { labels });
      engine.events.emit("volume", "create", point.Name, { driver: "local" });
    } catch (error) {
      if (!(error instanceof VmsanError) || error.code !== "ERR_VOLUME_NAME_TAKEN") throw error;
    }
  }
}

/** Refuse an image of another platform than the one asked for. @throws 404, at which clients pull the right one */
function checkPlatform({ view }: KnownImage, ref: string, wished: string): void {
  const [os = "linux", architecture = "", variant] = view.platform.split("/");
  const parts = wished.toLowerCase().split("/");
  const [wantOs, called, saidVariant] =
    parts.length === 1 && parts[0] !== "linux" ? ["linux", ...parts] : parts;
  const [want, implied] = architectureOf(called ?? architecture);
  const wantVariant = saidVariant ?? implied;
  const other = wantVariant !== undefined && variant !== undefined && wantVariant !== variant;
  if (wantOs === os && want === architecture && !other) return;
  throw new DockerError(
    404,
    `image with reference ${ref.slice(0, 200)} was found but its platform (${view.platform}) does not match the specified platform (${wished.slice(0, 100)})`,
  );
}

/** Make a container. @throws 400, 404, 409 */
export async function createContainer(
  engine: Engine,
  given: unknown,
  wishedName: string,
  platform: string,
): Promise<{ container: Container; warnings: string[] }> {
  const body = readBody(containerSchema, given, "request to create a container");
  const host = body.HostConfig ?? {};
  if (wishedName !== "") checkName(engine, wishedName);
  const image = await engine.catalogue.find(body.Image);
  if (platform !== "") checkPlatform(image, body.Image, platform);
  const config = configOf(body, image.details.config);
  const machine = machineOf(body);
  checkRestartPolicy(host);
  logLimitsOf(host);
  portWishes(host, config);
  const planned = plannedMounts(body);
  const id = randomBytes(32).toString("hex");
  const networks = await networksOf(engine, body, id);
  const reaper = Object.hasOwn(config.Labels, TESTCONTAINERS);
  await makeDirectories(planned, engine.socket, reaper);
  await makeVolumes(engine, planned);
  // Asked again: others may have come meanwhile, and nothing is awaited until the container has it.
  const name = wishedName === "" ? inventName(engine) : checkName(engine, wishedName);
  const container = await engine.make({
    schema: 1,
    id,
    name,
    createdAt: new Date().toISOString(),
    image: {
      // Its digest says which one it is; names of archives and directories are none of a registry's.
      name: image.names.find(isReference) ?? "localhost/unnamed",
      digest: image.digest,
      id: image.id,
    },
    config,
    hostConfig: recordedHost(host),
    env: body.Env ?? [],
    mounts: planned.map(({ point }) => point),
    ports: [],
    networks,
    vcpus: machine.vcpus,
    memMib: machine.memMib,
    state: {
      status: "created",
      exitCode: 0,
      error: "",
      oomKilled: false,
      pid: 0,
      startedAt: NEVER,
      finishedAt: NEVER,
    },
    restartCount: 0,
    stoppedByHand: false,
  });
  container.tell("create");
  return { container, warnings: machine.warnings };
}
