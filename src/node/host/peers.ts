/** Other nodes that have an image, so that this host's daemon gets its layers from them. */
import { fullImageName } from "../../client/registry/full-name.ts";
import type { BlobPeers } from "../../model/api.ts";
import { nodeListSchema } from "../../schema/node-list.ts";
import type { ListedNode } from "../../schema/node-list.ts";
import { validate } from "../../schema/validate.ts";
import { apiPath } from "../../kube/api-server.ts";
import type { ApiServer } from "../../kube/api-server.ts";
import type { Identity, TlsIdentity } from "../../kube/identity.ts";
import { NODE_LABEL } from "../../kube/pod-words.ts";
import { bracketed } from "../../util/hosts/bracketed.ts";
import type { Log } from "../../util/log.ts";

/** How long the list of nodes is as good as a new one, in milliseconds, and how long none is asked for once that has failed. */
const LIST_MS = 30_000;
const FAILED_MS = 300_000;
/** Most nodes that are asked for one image. */
const MOST = 4;

/** What peers are known by. */
export interface PeersParts {
  api: ApiServer;
  identity: Identity;
  /** This node's name. */
  node: string;
  log: Log;
}

/** `10.0.0.7:10250`; undefined: it cannot be asked now. */
function hostOf({ status }: ListedNode): string | undefined {
  const ready = status?.conditions?.find(({ type }) => type === "Ready");
  const address = status?.addresses?.find(({ type }) => type === "InternalIP")?.address;
  const port = status?.daemonEndpoints?.kubeletEndpoint?.Port;
  if (ready?.status !== "True" || address === undefined || port === undefined) return undefined;
  return `${bracketed(address)}:${port}`;
}

/** Certificates or a key as one text, however they were given. */
function pem(value: NonNullable<TlsIdentity["ca"]> | NonNullable<TlsIdentity["key"]>): string {
  return [value].flat().map(String).join("\n");
}

/** In an order that differs each time, so that not all ask the same. */
function shuffled<T>(list: readonly T[]): T[] {
  return list
    .map((value): [number, T] => [Math.random(), value])
    .toSorted(([a], [b]) => a - b)
    .map(([, value]) => value);
}

/** Finds peers for images. */
export class Peers {
  private readonly parts: PeersParts;
  private nodes: Promise<ListedNode[]> = Promise.resolve([]);
  private until = -Infinity;

  constructor(parts: PeersParts) {
    this.parts = parts;
  }

  /** Nodes that say that they have an image, and how they are asked; undefined: none. Never rejects. */
  async having(image: string): Promise<BlobPeers | undefined> {
    const { ca, cert, key } = this.parts.identity.tls();
    // Nodes answer nodes alone, which show a certificate.
    if (ca === undefined || cert === undefined || key === undefined) return undefined;
    const name = await fullImageName(image);
    if (name === undefined) return undefined;
    const hosts = shuffled(await this.list())
      .filter(({ status }) => status?.images?.some(({ names }) => names?.includes(name)))
      .flatMap((node) => hostOf(node) ?? [])
      .slice(0, MOST);
    if (hosts.length === 0) return undefined;
    return { hosts, ca: pem(ca), cert: pem(cert), key: pem(key) };
  }

  private async list(): Promise<ListedNode[]> {
    if (performance.now() > this.until) {
      this.until = performance.now() + LIST_MS;
      this.nodes = this.fetch().catch((error: unknown) => {
        this.parts.log.error("cannot look for nodes that have images", error);
        this.until = performance.now() + FAILED_MS;
        return [];
      });
    }
    return await this.nodes;
  }

  private async fetch(): Promise<ListedNode[]> {
    const { api, node } = this.parts;
    // As the API server remembers it: nothing depends on the newest state.
    const query = new URLSearchParams({
      labelSelector: `${NODE_LABEL}=true`,
      resourceVersion: "0",
    });
    const list = await api.request("GET", `${apiPath("v1", "nodes")}?${query.toString()}`);
    const { items } = validate(nodeListSchema, list, "list of nodes", "ERR_NODE_OBJECT");
    return items.filter(({ metadata }) => metadata.name !== node);
  }
}
