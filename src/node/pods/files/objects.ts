/**
 * ConfigMaps and Secrets that are in volumes of this node's pods: each is looked at twice a minute, whoever and how many have it,
 * and whose files are of an earlier one is told. Only what an object is called by is fetched, never what it holds. A
 * watch for each would be a connection for each; what a node may not do is watch them all.
 */
import { apiPath, isStatus } from "../../../kube/api-server.ts";
import type { ApiServer } from "../../../kube/api-server.ts";
import { versionSchema } from "../../../schema/pod.ts";
import { validate } from "../../../schema/validate.ts";
import { Timers } from "../life/timers.ts";
import type { Source } from "./volumes.ts";

/** Milliseconds between looks at an object, and the shortest time between two requests. */
const PERIOD_MS = 30_000;
const PACE_MS = 100;
/** The API server's word for an object without its content. */
const WITHOUT_CONTENT =
  "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/** One object and who has it. */
interface Watched {
  version: string;
  /** By the owner's UID. */
  owners: Map<string, () => void>;
}

/** The objects that the volumes of all pods here are made of. */
export class SharedObjects {
  private readonly api: ApiServer;
  private readonly watched = new Map<string, Watched>();
  /** What each owner has. */
  private readonly paths = new Map<string, string[]>();
  private readonly timers = new Timers();
  private going = false;

  constructor(api: ApiServer) {
    this.api = api;
  }

  /**
   * A pod's files are made of these, as they were then.
   * @param onChange called whenever one of them is another one
   */
  use(owner: string, namespace: string, sources: readonly Source[], onChange: () => void): void {
    this.drop(owner);
    const paths: string[] = [];
    for (const { kind, name, version, immutable } of sources) {
      if (immutable) continue;
      const path = apiPath("v1", "namespaces", namespace, kind, name);
      paths.push(path);
      const known = this.watched.get(path);
      if (known === undefined) {
        this.watched.set(path, { version, owners: new Map([[owner, onChange]]) });
      } else {
        // Who was here before has files of another one, and the next look would no longer tell.
        if (known.version !== version) for (const tell of known.owners.values()) tell();
        known.version = version;
        known.owners.set(owner, onChange);
      }
    }
    if (paths.length > 0) this.paths.set(owner, paths);
    if (!this.going && this.watched.size > 0) {
      this.going = true;
      this.timers.after(PERIOD_MS, () => void this.round());
    }
  }

  /** A pod has none any more. */
  drop(owner: string): void {
    for (const path of this.paths.get(owner) ?? []) {
      const owners = this.watched.get(path)?.owners;
      owners?.delete(owner);
      if (owners?.size === 0) this.watched.delete(path);
    }
    this.paths.delete(owner);
  }

  /** Look at all of them, one after the other. */
  private async round(): Promise<void> {
    const since = performance.now();
    for (const path of this.watched.keys()) {
      try {
        await this.look(path);
      } catch {
        // The API server is away, or is not asked for what it has just been told of: the next round tells.
      }
      await new Promise<void>((resolve) => this.timers.after(PACE_MS, resolve));
    }
    this.going = this.watched.size > 0;
    if (!this.going) return;
    const left = Math.max(PACE_MS, PERIOD_MS - (performance.now() - since));
    this.timers.after(left, () => void this.round());
  }

  private async look(path: string): Promise<void> {
    let version = "";
    try {
      // As the API server has it at hand: no question to its store.
      const reply = await this.api.request("GET", `${path}?resourceVersion=0`, {
        accept: WITHOUT_CONTENT,
      });
      version = validate(versionSchema, reply, path, "ERR_NODE_OBJECT").metadata.resourceVersion;
    } catch (error) {
      if (!isStatus(error, 404)) throw error;
    }
    const known = this.watched.get(path);
    if (known === undefined || known.version === version) return;
    known.version = version;
    for (const onChange of known.owners.values()) onChange();
  }
}
