/**
 * ConfigMaps and Secrets that are in volumes of this node's pods: each is looked at twice a minute, whoever and how many have it,
 * and whose files are of an earlier one is told. Only what an object is called by is fetched, never what it holds. A
 * watch for each would be a connection for each; what a node may not do is watch them all.
 */
import { apiPath, isStatus } from "../../../kube/api-server.ts";
import type { ApiServer } from "../../../kube/api-server.ts";
import { asVmsanError } from "../../../model/errors.ts";
import { versionSchema } from "../../../schema/pod.ts";
import { validate } from "../../../schema/validate.ts";
import { Timers } from "../life/timers.ts";
import type { Source } from "./volumes.ts";

/** Milliseconds between looks at an object, and the shortest time between two requests. */
const PERIOD_MS = 30_000;
const PACE_MS = 100;
/** Looks in a row that fail before it is said. */
const LASTING = 4;
/** The API server's word for an object without its content. */
const WITHOUT_CONTENT =
  "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/** Who has files of an object. */
interface Owner {
  /** It is another one now. */
  changed: () => void;
  /** It could not be looked at for a while; said once until it can be again. */
  failed: (error: unknown) => void;
}

/** One object and who has it. */
interface Watched {
  version: string;
  /** By their UIDs. */
  owners: Map<string, Owner>;
  /** Looks in a row that have failed. */
  failures: number;
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
   * @param uid the pod's
   * @param owner told whenever one of them is another one
   */
  use(uid: string, namespace: string, sources: readonly Source[], owner: Owner): void {
    this.drop(uid);
    const paths: string[] = [];
    for (const { kind, name, version, immutable } of sources) {
      if (immutable) continue;
      const path = apiPath("v1", "namespaces", namespace, kind, name);
      paths.push(path);
      const known = this.watched.get(path);
      if (known === undefined) {
        this.watched.set(path, { version, owners: new Map([[uid, owner]]), failures: 0 });
      } else {
        // Who was here before has files of another one, and the next look would no longer tell.
        if (known.version !== version) for (const { changed } of known.owners.values()) changed();
        known.version = version;
        known.owners.set(uid, owner);
      }
    }
    if (paths.length > 0) this.paths.set(uid, paths);
    if (!this.going && this.watched.size > 0) {
      this.going = true;
      this.timers.after(PERIOD_MS, () => void this.round());
    }
  }

  /** A pod has none any more. */
  drop(uid: string): void {
    for (const path of this.paths.get(uid) ?? []) {
      const owners = this.watched.get(path)?.owners;
      owners?.delete(uid);
      if (owners?.size === 0) this.watched.delete(path);
    }
    this.paths.delete(uid);
  }

  /** Look at all of them, one after the other. */
  private async round(): Promise<void> {
    const since = performance.now();
    for (const path of this.watched.keys()) {
      try {
        await this.look(path);
      } catch (error) {
        this.failed(path, error);
      }
      await new Promise<void>((resolve) => this.timers.after(PACE_MS, resolve));
    }
    this.going = this.watched.size > 0;
    if (!this.going) return;
    const left = Math.max(PACE_MS, PERIOD_MS - (performance.now() - since));
    this.timers.after(left, () => void this.round());
  }

  /** The next round may tell; what lasts is said, unless it is that nobody answers, which the node says of itself. */
  private failed(path: string, error: unknown): void {
    const known = this.watched.get(path);
    if (known === undefined || asVmsanError(error, "").code === "ERR_NODE_API") return;
    known.failures += 1;
    if (known.failures !== LASTING) return;
    for (const owner of known.owners.values()) owner.failed(error);
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
    if (known === undefined) return;
    known.failures = 0;
    if (known.version === version) return;
    known.version = version;
    for (const { changed } of known.owners.values()) changed();
  }
}
