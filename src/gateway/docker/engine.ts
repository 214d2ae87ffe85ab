/** All that there is: containers, images, networks, events. */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Vmsan } from "../../client/vmsan.ts";
import type { ContainerRecord } from "../../schema/docker.ts";
import { Mutex } from "../../util/flow/mutex.ts";
import type { Log } from "../../util/log.ts";
import type { GatewayDriver } from "../native/bodies.ts";
import { BuildKit } from "./buildkit/buildkit.ts";
import { removePassing } from "./buildkit/contexts.ts";
import { Container } from "./containers/container.ts";
import type { ContainerContext, Life } from "./containers/life/life.ts";
import { Execs } from "./containers/execs.ts";
import { CONTAINER_LABEL } from "./containers/life/guest.ts";
import { startsByItself } from "./containers/life/restart.ts";
import type { EngineRelay } from "./containers/life/sockets.ts";
import { ContainerStore } from "./containers/store.ts";
import { DockerError } from "./errors.ts";
import { Events } from "./events.ts";
import { Catalogue } from "./images/catalogue.ts";
import { Networks } from "./networks/networks.ts";
import { shareVolume, toBeShared } from "./shared-volumes.ts";

/** Who holds images while documents cannot be read. */
const BESIDE_DAMAGED = "docker-beside-damaged";

/** What an engine is made of. */
export interface EngineParts {
  vmsan: Vmsan;
  /** Absolute path of this protocol's own directory. */
  directory: string;
  log: Log;
  driver: GatewayDriver;
  /** Path of the socket that it is served on, where it is one. */
  socket?: string;
  /** What containers reach of it that mount that socket. */
  relay: (engine: Engine) => EngineRelay;
}

/** An engine of one VMSAN_DIR. */
export class Engine {
  readonly vmsan: Vmsan;
  readonly directory: string;
  /** A directory for what is there while a build runs. */
  readonly scratch: string;
  readonly events = new Events();
  readonly catalogue: Catalogue;
  readonly networks: Networks;
  readonly execs = new Execs();
  readonly buildkit: BuildKit;
  readonly log: Log;
  /** See {@link EngineParts.socket}. */
  readonly socket: string | undefined;
  private readonly relay: EngineRelay;
  private readonly store: ContainerStore;
  private readonly byId = new Map<string, Container>();
  private readonly context: ContainerContext;
  private readonly holding = new Mutex();
  /** Images that are held; undefined: whatever an engine before this one has left. */
  private held: string[] | undefined;
  /** In whose name they are held. */
  private holder = "docker";

  constructor({ vmsan, directory, log, driver, socket, relay }: EngineParts) {
    this.socket = socket;
    this.vmsan = vmsan;
    this.directory = directory;
    this.scratch = join(directory, "builds");
    this.log = log;
    this.catalogue = new Catalogue(vmsan);
    this.buildkit = new BuildKit(this);
    this.networks = new Networks(vmsan, this.events);
    this.store = new ContainerStore(directory);
    this.relay = relay(this);
    this.context = {
      vmsan,
      store: this.store,
      events: this.events,
      log,
      driver,
      lead: async (vm, path) => await this.relay.lead(vm, path),
      claim: async (container) => await this.claim(container),
      forget: (container) => {
        this.byId.delete(container.id);
        void this.holdImages().catch((error: unknown) => this.log.error("images in use", error));
      },
    };
  }

  /** Take up what there was: containers that run are held again, and logs go on where they stopped. */
  async open(): Promise<void> {
    await this.clearBuilds();
    const { records, damaged } = await this.store.load(this.log);
    for (const record of records) this.add(record);
    await this.adopt(damaged);
    // Whatever documents that cannot be read had held stays with them, whatever else is made and removed.
    if (damaged.length > 0) this.holder = BESIDE_DAMAGED;
    await this.holdImages();
    if (damaged.length === 0) await this.hold(BESIDE_DAMAGED, []);
    await Promise.all(
      [...this.byId.values()].map(async (container) => {
        try {
          await container.reconcile();
          if (!container.removed && !container.active && startsByItself(container.record)) {
            void container.start().catch((error: unknown) => this.log.error("restart", error));
          }
        } catch (error) {
          this.log.error(`container ${container.id}`, error);
        }
      }),
    );
  }

  /** Remove what builds have left when a gateway was killed. On a cluster there are no images of this host. */
  private async clearBuilds(): Promise<void> {
    await rm(this.scratch, { recursive: true, force: true });
    await mkdir(this.scratch, { mode: 0o700 });
    if (this.vmsan.cluster) return;
    for (const name of await removePassing(this.vmsan.images)) {
      this.log.info(`removed ${name}: its build was cut off`);
    }
  }

  /**
   * Have the images of all containers held: one that was made only has no VM that holds its own. On a cluster they are
   * its hosts'.
   */
  async holdImages(): Promise<void> {
    await this.holding.run(async () => {
      const digests = this.containers.map(({ record }) => record.image.digest);
      const wanted = [...new Set(digests.filter((digest) => digest !== ""))].toSorted();
      if (this.held?.join() === wanted.join()) return;
      await this.hold(this.holder, wanted);
      this.held = wanted;
    });
  }

  private async hold(holder: string, digests: readonly string[]): Promise<void> {
    if (this.vmsan.cluster) return;
    await this.vmsan.images.hold(holder, digests, "containers of Docker's clients");
  }

  /** Let go of all containers; they go on. */
  async close(): Promise<void> {
    await Promise.all(this.containers.map(async (container) => await container.release()));
    // Whoever takes them up next goes by their documents.
    await this.store.settled();
    await this.relay.close();
  }

  /** VMs whose container does not know of them, or is no more: a gateway was killed in the middle. */
  private async adopt(damaged: readonly string[]): Promise<void> {
    // VMs of keys are in their projects, and may have any label.
    for (const view of await this.vmsan.list({ project: "" })) {
      const { [CONTAINER_LABEL]: id } = view.labels;
      if (id === undefined || damaged.includes(id)) continue;
      const container = this.byId.get(id);
      if (container === undefined) {
        // On a cluster it may be another gateway's.
        if (this.vmsan.cluster) continue;
        this.log.info(`removing ${view.id}: its container ${id} is no more`);
        await this.vmsan.remove(view.id, { force: true });
      } else if (container.record.vm === undefined) {
        container.record.vm = view.id;
        container.record.ports = view.ports;
        await container.save();
      }
    }
  }

  /** A container of a record. */
  private add(record: ContainerRecord): Container {
    const container = new Container(record, this.context);
    this.byId.set(record.id, container);
    return container;
  }

  /** A container that is made, with its image held and its document written. */
  async make(record: ContainerRecord): Promise<Container> {
    const container = this.add(record);
    try {
      await this.holdImages();
      await container.save();
      return container;
    } catch (error) {
      this.byId.delete(container.id);
      throw error;
    }
  }

  /** Have the volumes of a container free of VMs that linger for their files, and shared where several are to use them. */
  private async claim({ record }: Life): Promise<void> {
    const volumes = new Set(record.mounts.flatMap(({ Name }) => Name ?? []));
    if (volumes.size === 0) return;
    const others = this.containers.filter(({ id }) => id !== record.id);
    await Promise.all(others.map(async (other) => await other.letGo(volumes)));
    const records = others.map((other) => other.record);
    for (const name of toBeShared(record, records)) {
      await shareVolume(this.vmsan, name, records);
    }
  }

  /** All containers, the newest first. */
  get containers(): Container[] {
    const time = ({ record }: Container): number => Date.parse(record.createdAt);
    return [...this.byId.values()].toSorted((a, b) => time(b) - time(a));
  }

  /** The container with a name, without a slash. */
  named(name: string): Container | undefined {
    return [...this.byId.values()].find(({ record }) => record.name === name);
  }

  /** A container by ID, name or the beginning of its ID. @throws 404 */
  find(ref: string): Container {
    const whole = this.byId.get(ref) ?? this.named(ref.replace(/^\//, ""));
    if (whole !== undefined) return whole;
    const matches = /^[0-9a-f]+$/.test(ref)
      ? [...this.byId.values()].filter(({ id }) => id.startsWith(ref))
      : [];
    const [first, second] = matches;
    if (second !== undefined) {
      throw new DockerError(400, `multiple IDs found with provided prefix: ${ref}`);
    }
    if (first === undefined) throw new DockerError(404, `No such container: ${ref.slice(0, 200)}`);
    return first;
  }
}
