/** Networks by name. */
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { errnoOf } from "../../../model/errors.ts";
import { validate } from "../../../schema/api.ts";
import { networkSchema } from "../../../schema/docker.ts";
import { writeFileAtomic } from "../../../util/atomic.ts";
import { DockerError } from "../errors.ts";
import type { Events } from "../events.ts";

const recordSchema = z.object({
  Name: z.string(),
  Id: z.string(),
  Created: z.string(),
  Driver: z.string(),
  Internal: z.boolean(),
  Attachable: z.boolean(),
  Labels: z.record(z.string(), z.string()),
  Options: z.record(z.string(), z.string()),
});

const fileSchema = z.object({ version: z.literal(1), networks: z.array(recordSchema).max(10_000) });

/** A network; `builtIn`: nobody has made it, and nobody can remove it. */
export interface Network extends z.infer<typeof recordSchema> {
  builtIn: boolean;
}

const BUILT_IN: readonly Network[] = [
  ["bridge", "bridge", "b"],
  ["host", "host", "a"],
  ["none", "null", "0"],
].map(([Name = "", Driver = "", digit = ""]) => ({
  Name,
  Driver,
  Id: digit.repeat(64),
  Created: "2025-01-01T00:00:00Z",
  Internal: false,
  Attachable: false,
  Labels: {},
  Options: {},
  builtIn: true,
}));

/** The networks of one gateway directory. */
export class Networks {
  private readonly path: string;
  private readonly events: Events;
  private own: Network[] | undefined;

  constructor(path: string, events: Events) {
    this.path = path;
    this.events = events;
  }

  private async load(): Promise<Network[]> {
    if (this.own !== undefined) return this.own;
    let content: unknown;
    try {
      content = JSON.parse(await readFile(this.path, "utf8"));
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      content = { version: 1, networks: [] };
    }
    const { networks } = validate(fileSchema, content, `file ${this.path}`, "ERR_GATEWAY_STORE");
    this.own ??= networks.map((network) => ({ ...network, builtIn: false }));
    return this.own;
  }

  private async save(networks: Network[]): Promise<void> {
    this.own = networks;
    const file = { version: 1, networks: networks.map(({ builtIn: _builtIn, ...rest }) => rest) };
    await writeFileAtomic(this.path, `${JSON.stringify(file, null, 2)}\n`);
  }

  /** All networks. */
  async list(): Promise<Network[]> {
    return [...BUILT_IN, ...(await this.load())];
  }

  /** One by name, ID or the beginning of that. @throws 404 */
  async find(ref: string): Promise<Network> {
    const all = await this.list();
    const found =
      all.find(({ Name, Id }) => Name === ref || Id === ref) ??
      (/^[0-9a-f]{4,}$/.test(ref) ? all.find(({ Id }) => Id.startsWith(ref)) : undefined);
    if (found !== undefined) return found;
    throw new DockerError(404, `network ${ref.slice(0, 200)} not found`);
  }

  /** Make one. @throws 409 when the name is taken */
  async create(given: unknown): Promise<Network> {
    const body = validate(networkSchema, given, "request to create a network");
    if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/.test(body.Name)) {
      throw new DockerError(400, `invalid network name: ${body.Name.slice(0, 100)}`);
    }
    const driver = body.Driver || "bridge";
    if (driver !== "bridge") {
      throw new DockerError(
        400,
        `could not find plugin ${driver.slice(0, 60)} in v1 plugin registry: there are bridge networks alone`,
      );
    }
    const networks = await this.load();
    if ([...BUILT_IN, ...networks].some(({ Name }) => Name === body.Name)) {
      throw new DockerError(409, `network with name ${body.Name} already exists`);
    }
    const network: Network = {
      Name: body.Name,
      Id: randomBytes(32).toString("hex"),
      Created: new Date().toISOString(),
      Driver: driver,
      Internal: body.Internal ?? false,
      Attachable: body.Attachable ?? false,
      Labels: body.Labels ?? {},
      Options: body.Options ?? {},
      builtIn: false,
    };
    await this.save([...networks, network]);
    this.events.emit("network", "create", network.Id, { name: network.Name, type: driver });
    return network;
  }

  /** Remove one. @throws 403 for one that is built in */
  async remove(network: Network): Promise<void> {
    if (network.builtIn) {
      throw new DockerError(403, `${network.Name} is a pre-defined network and cannot be removed`);
    }
    await this.save((await this.load()).filter(({ Id }) => Id !== network.Id));
    this.events.emit("network", "destroy", network.Id, {
      name: network.Name,
      type: network.Driver,
    });
  }
}
