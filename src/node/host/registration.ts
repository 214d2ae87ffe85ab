/** This host as an object of the cluster: made once, its status kept up to date. */
import { hostname } from "node:os";
import type { Vmsan } from "../../client/vmsan.ts";
import { hostArchitecture } from "../../util/hosts/architecture.ts";
import { packageVersion } from "../../util/package.ts";
import { NODE_LABEL } from "../../kube/pod-words.ts";
import { PATCH_TYPE, apiPath, isStatus } from "../../kube/api-server.ts";
import type { ApiServer } from "../../kube/api-server.ts";
import { seconds } from "../pods/life/state.ts";
import { diskOf, nodeInfo, pressureOf } from "./capacity.ts";
import type { Capacity } from "./capacity.ts";

/** Most images that a node tells of, and names of each. */
const MAX_IMAGES = 50;
const MAX_NAMES = 5;
/** As long as nothing changes, a status is told anew after so many milliseconds. */
const AGAIN_MS = 300_000;

/** What a node is known by. */
export interface NodeIdentity {
  name: string;
  /** Address at which the API server reaches it. */
  address: string;
  /** Port of its kubelet API. */
  port: number;
  capacity: Capacity;
  /** Besides its own. */
  labels: Record<string, string>;
  /** Pods come to it only when they tolerate what it is. */
  tainted: boolean;
}

/** Features of this node that an API server may use. */
const FEATURES = ["ExtendWebSocketsToKubelet"];

interface Condition {
  type: string;
  status: "True" | "False";
  reason: string;
  message: string;
  lastHeartbeatTime: string;
  lastTransitionTime: string;
}

/** Keeps this host's node object. */
export class Registration {
  private readonly api: ApiServer;
  private readonly vmsan: Vmsan;
  private readonly node: NodeIdentity;
  private readonly since = new Map<string, { status: string; at: string }>();
  private told = "";
  private toldAt = -Infinity;

  constructor(api: ApiServer, vmsan: Vmsan, node: NodeIdentity) {
    this.api = api;
    this.vmsan = vmsan;
    this.node = node;
  }

  private path(...rest: string[]): string {
    return apiPath("v1", "nodes", this.node.name, ...rest);
  }

  /** Make the node, or claim the one that is there. @throws ApiError */
  async register(): Promise<void> {
    const { name, labels, tainted } = this.node;
    const own = {
      "kubernetes.io/hostname": name,
      "kubernetes.io/os": "linux",
      "kubernetes.io/arch": hostArchitecture(),
      [NODE_LABEL]: "true",
      ...labels,
    };
    const taints = tainted ? [{ key: NODE_LABEL, value: "true", effect: "NoSchedule" }] : [];
    const body = {
      apiVersion: "v1",
      kind: "Node",
      metadata: { name, labels: own },
      spec: { taints },
    };
    try {
      await this.api.request("POST", apiPath("v1", "nodes"), { body });
    } catch (error) {
      if (!isStatus(error, 409)) throw error;
      // A node may not change its own taints: those of the object that is there stay.
      await this.api.request("PATCH", this.path(), {
        body: { metadata: { labels: own } },
        type: PATCH_TYPE.merge,
      });
    }
    this.toldAt = -Infinity;
    await this.update();
  }

  private condition(type: string, holds: boolean, reason: string, message: string): Condition {
    const status = holds ? "True" : "False";
    const now = seconds();
    const before = this.since.get(type);
    const at = before?.status === status ? before.at : now;
    this.since.set(type, { status, at });
    return { type, status, reason, message, lastHeartbeatTime: now, lastTransitionTime: at };
  }

  private async conditions(): Promise<Condition[]> {
    const { memory, disk } = await pressureOf(this.vmsan.daemon.layout.root);
    return [
      this.condition("MemoryPressure", memory, memory ? "LittleMemory" : "EnoughMemory", ""),
      this.condition("DiskPressure", disk, disk ? "LittleDisk" : "EnoughDisk", ""),
      this.condition("PIDPressure", false, "EnoughPIDs", ""),
      this.condition("Ready", true, "NodeReady", "vmsan takes pods"),
    ];
  }

  private async images(): Promise<{ names: string[]; sizeBytes: number }[]> {
    const { images } = await this.vmsan.images.list();
    return images
      .filter(({ names }) => names.length > 0)
      .toSorted((a, b) => b.sizeBytes - a.sizeBytes)
      .slice(0, MAX_IMAGES)
      .map(({ names, digest, sizeBytes }) => ({
        names: [
          ...names.slice(0, MAX_NAMES),
          `${(names[0] ?? "").replace(/(?<=[^/]):[^/:]*$/, "")}@${digest}`,
        ],
        sizeBytes,
      }));
  }

  /** Tell how it is, if that has changed, or was told long ago. @throws ApiError */
  async update(): Promise<void> {
    const { address, port, capacity } = this.node;
    const { total } = await diskOf(this.vmsan.daemon.layout.root);
    const amounts = {
      cpu: String(capacity.cpus),
      memory: String(capacity.memoryBytes),
      "ephemeral-storage": String(total),
      pods: String(capacity.pods),
    };
    const conditions = await this.conditions();
    const status = {
      capacity: amounts,
      allocatable: amounts,
      // Not the host's name: the API server would have to be able to resolve it, and tries it first.
      addresses: [{ type: "InternalIP", address }],
      daemonEndpoints: { kubeletEndpoint: { Port: port } },
      nodeInfo: await nodeInfo(packageVersion()),
      declaredFeatures: FEATURES,
      images: await this.images(),
      conditions,
    };
    const essence = JSON.stringify({
      ...status,
      conditions: conditions.map(({ type, status: holds }) => [type, holds]),
    });
    if (essence === this.told && performance.now() - this.toldAt < AGAIN_MS) return;
    await this.api.request("PATCH", this.path("status"), {
      body: { status },
      type: PATCH_TYPE.strategic,
    });
    this.told = essence;
    this.toldAt = performance.now();
  }
}

/** The name of a node that is given none: the host's, as Kubernetes takes names. */
export function hostNodeName(): string {
  return hostname()
    .toLowerCase()
    .replaceAll(/[^a-z0-9.-]/g, "-");
}
