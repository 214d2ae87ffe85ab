/** One node: its object, its lease, its pods, its server; and what happens to them until it ends. */
import { X509Certificate } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdir } from "node:fs/promises";
import { isIPv6 } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Vmsan } from "../client/vmsan.ts";
import { VmsanError } from "../model/errors.ts";
import type { DriverName } from "../model/vm.ts";
import { isLoopback } from "../util/hosts/loopback.ts";
import { tryLock } from "../util/lock.ts";
import type { Lock } from "../util/lock.ts";
import { fileLog } from "../util/log.ts";
import type { Log } from "../util/log.ts";
import { vmsanDir } from "../util/paths.ts";
import { Fence, sinceBoot } from "./host/fence.ts";
import type { Capacity } from "./host/capacity.ts";
import { ownCapacity } from "./host/capacity.ts";
import { renewLease } from "./host/lease.ts";
import { Peers } from "./host/peers.ts";
import { Registration, hostNodeName } from "./host/registration.ts";
import { ServingCertificates } from "./join/serving.ts";
import { rotate } from "./join/rotation.ts";
import type { RenewableIdentity } from "./join/joined.ts";
import type { KeyedCertificate } from "./join/certificates.ts";
import { KubeClient } from "../kube/client.ts";
import { apiPath, isStatus } from "../kube/api-server.ts";
import type { Identity } from "../kube/identity.ts";
import { serveKubelet } from "./kubelet/server.ts";
import type { KubeletServer } from "./kubelet/server.ts";
import { DEFAULT_KEPT, KeptMemory } from "./pods/kept/kept-memory.ts";
import { PodStore } from "./pods/life/store.ts";
import { DEFAULT_QUOTA, PodVolumes } from "./pods/starting/volumes.ts";
import { Pods } from "./pods/pods.ts";
import type { AllowedHostPath } from "./pods/files/volumes.ts";
import { References } from "./pods/files/references.ts";

/** How a node is made. */
export interface NodeOptions {
  identity: Identity | RenewableIdentity;
  /** VMSAN_DIR; default from the environment. */
  dir?: string;
  /** Default: that of its certificate, else the host's. */
  name?: string;
  /** Address at which the API server reaches this host; default: the one that leads to the API server. */
  address?: string;
  /** Of the kubelet API; default 10250, 0: the kernel chooses. */
  port?: number;
  capacity?: Partial<Capacity>;
  labels?: Record<string, string>;
  /** Pods need not tolerate that this is no ordinary node. */
  untainted?: boolean;
  hostPaths?: readonly AllowedHostPath[];
  /** Bytes that volumes of one namespace may have on this host; default 20 GiB. */
  volumeQuota?: number;
  /** How many pods' memory may be kept after their removal; default 16, 0: none's. */
  suspended?: number;
  driver?: DriverName | "auto";
  /** Have layers of images from other nodes that have them, and let those have this host's. */
  peers?: boolean;
  /** Certificates of the authority that has signed the API server's client certificate, PEM; default the cluster's. */
  clientCa?: string;
  /** Of the kubelet API; default: requested from the cluster. */
  serving?: KeyedCertificate;
  /** Seconds of silence after which the control plane gives a node up; default 40. */
  gracePeriod?: number;
}

/** A node that runs. */
export interface RunningNode {
  name: string;
  address: string;
  port: number;
  /** All pods that were here before have been taken up. */
  adopted: Promise<void>;
  /** End it; its pods go on, and the next one takes them up. */
  close(): Promise<void>;
}

/** The port of the kubelet. */
const KUBELET_PORT = 10_250;
/** Milliseconds until something is tried again that has failed. */
const RETRY_MS = 2_000;
/** Milliseconds between looks at the host, and at VMs that nobody has. */
const STATUS_MS = 30_000;
/** Seconds of silence after which Kubernetes gives a node up at the earliest. */
const GRACE_SECONDS = 40;
/** How much of that time is left when its VMs stand still, and how much of it a lease is renewed after. */
const MARGIN_SHARE = 0.25;

/** The name for which the cluster has given a certificate; undefined: it has given none. */
function certifiedName(identity: Identity): string | undefined {
  const { cert } = identity.tls();
  if (cert === undefined) return undefined;
  const { subject } = new X509Certificate(cert as string | Buffer);
  return /^CN=system:node:(.+)$/m.exec(subject)?.[1];
}

/** The address of this host on the way to the API server. */
async function ownAddress(url: string): Promise<string> {
  const { hostname, port } = new URL(url);
  const host = hostname.replace(/^\[(.*)\]$/, "$1");
  const socket = createSocket(isIPv6(host) ? "udp6" : "udp4");
  try {
    // Nothing is sent: the kernel only chooses the way.
    socket.connect(Number(port === "" ? 443 : port), host);
    await once(socket, "connect");
    return socket.address().address;
  } finally {
    socket.close();
  }
}

/** Whether an object is surely no more, or another one of its name is there. */
async function isGone(api: KubeClient, path: string, uid: string): Promise<boolean> {
  try {
    const found = (await api.request("GET", path)) as { metadata?: { uid?: string } };
    return found.metadata?.uid !== uid;
  } catch (error) {
    // An API server that has just been started says 404 of kinds that it does not know yet, and names no object then. 403:
    // this node may not ask.
    const name = path.slice(path.lastIndexOf("/") + 1);
    return (
      isStatus(error, 404) && error instanceof VmsanError && !!error.why?.includes(`"${name}"`)
    );
  }
}

function claim(directory: string): Lock {
  const held = tryLock(join(directory, "lock"));
  if (held !== undefined) return held;
  throw new VmsanError({
    code: "ERR_NODE_RUNS",
    message: "This host is a node already",
    why: `Another vmsan node serves ${directory}.`,
    fix: "End it first; its pods go on.",
  });
}

/** What goes on for as long as a node lives. */
class NodeLoops {
  private readonly parts: {
    api: KubeClient;
    name: string;
    pods: Pods;
    fence: Fence;
    registration: Registration;
    log: Log;
    /** Milliseconds between renewals of the lease. */
    leaseMs: number;
  };
  private readonly over = new AbortController();
  /** Ends the watch that runs, so that pods are listed anew. */
  private again = new AbortController();
  private readonly running: Promise<void>[];

  constructor(parts: NodeLoops["parts"]) {
    this.parts = parts;
    this.running = [this.lease(), this.watch(), this.look()];
  }

  private async pause(ms: number): Promise<void> {
    // AbortError: it is over.
    await sleep(ms, undefined, { signal: this.over.signal }).catch(() => undefined);
  }

  private async lease(): Promise<void> {
    const { api, name, fence, registration, log, leaseMs } = this.parts;
    let failing = false;
    while (!this.over.signal.aborted) {
      const sentAt = sinceBoot();
      const limit = AbortSignal.any([this.over.signal, AbortSignal.timeout(leaseMs)]);
      try {
        await renewLease(api, name, limit);
        await fence.contact(sentAt);
        if (failing) {
          log.info("the API server is reached again");
          await registration.register();
        }
        failing = false;
        // Only what the API server has now says whose those are that stand still.
        if (fence.holds) this.again.abort();
        await this.pause(leaseMs);
      } catch (error) {
        if (this.over.signal.aborted) return;
        if (!failing) log.error("cannot renew the lease", error);
        failing = true;
        await this.pause(RETRY_MS);
      }
    }
  }

  private async watch(): Promise<void> {
    const { api, name, pods, fence, log } = this.parts;
    const selector = new URLSearchParams({ fieldSelector: `spec.nodeName=${name}` });
    const path = `${apiPath("v1", "pods")}?${selector.toString()}`;
    while (!this.over.signal.aborted) {
      this.again = new AbortController();
      const signal = AbortSignal.any([this.over.signal, this.again.signal]);
      for await (const step of api.watch(path, signal)) {
        try {
          await pods.take(step);
          if (step.kind === "all") await fence.wanted();
        } catch (error) {
          log.error("cannot take in what the API server says of pods", error);
          // All of it again, since a part may be missing.
          await this.pause(RETRY_MS);
          this.again.abort();
        }
      }
    }
  }

  private async look(): Promise<void> {
    const { registration, pods, log } = this.parts;
    await pods.adopted;
    while (!this.over.signal.aborted) {
      await this.pause(STATUS_MS);
      if (this.over.signal.aborted) return;
      try {
        await pods.sweep();
        await registration.update().catch(async (error: unknown) => {
          // The node's object was removed: it is made anew.
          if (!isStatus(error, 404)) throw error;
          await registration.register();
        });
      } catch (error) {
        log.error("cannot tell how this host is", error);
      }
    }
  }

  async close(): Promise<void> {
    this.over.abort();
    await Promise.all(this.running.slice(0, 2));
  }
}

/** Be a node until closed. @throws ERR_NODE_RUNS, ERR_NODE_API, ApiError, ERR_NODE_LISTEN */
export async function startNode(options: NodeOptions): Promise<RunningNode> {
  const vmsan = new Vmsan({ dir: options.dir ?? vmsanDir() });
  const directory = vmsan.daemon.layout.node;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const lock = claim(directory);
  const log = fileLog(join(directory, "node.log"));
  const api = new KubeClient(options.identity, (error) => log.error("the watch ended", error));
  const name = options.name ?? certifiedName(options.identity) ?? hostNodeName();
  let server: KubeletServer | undefined;
  let serving: ServingCertificates | undefined;
  let fence: Fence | undefined;
  try {
    const address = options.address ?? (await ownAddress(api.url));
    const store = new PodStore(directory);
    const pods = new Pods({
      api,
      node: name,
      log,
      vmsan,
      store,
      volumes: new PodVolumes(vmsan, options.volumeQuota ?? DEFAULT_QUOTA),
      kept: new KeptMemory({
        vmsan,
        most: options.suspended ?? DEFAULT_KEPT,
        log,
        isGone: async (path, uid) => await isGone(api, path, uid),
        accountOf: async (pod) => await new References(api, pod).accountUid(),
      }),
      host: {
        address,
        ...(isLoopback(new URL(api.url).hostname) ? {} : { apiServer: api.url }),
        hostPaths: options.hostPaths ?? [],
        driver: options.driver ?? "auto",
      },
      ...(options.peers === true
        ? { peers: new Peers({ api, identity: options.identity, node: name, log }) }
        : {}),
    });
    const graceMs = (options.gracePeriod ?? GRACE_SECONDS) * 1000;
    fence = new Fence({
      directory,
      afterMs: graceMs * (1 - MARGIN_SHARE),
      pods: () => pods.all(),
      vmsan,
      log,
    });
    await fence.start(() => store.load(log));
    const given = options.serving;
    serving = await ServingCertificates.load({ api, name, address, log, directory, given });
    const ca = options.clientCa ?? options.identity.tls().ca;
    server = await serveKubelet({
      node: name,
      pods,
      vmsan,
      api,
      address: { host: address, port: options.port ?? KUBELET_PORT },
      certificate: serving.current,
      clientCa: (ca ?? "") as string,
      peers: options.peers === true,
      log,
    });
    const registration = new Registration(api, vmsan, {
      name,
      address,
      port: server.port,
      capacity: { ...ownCapacity(), ...options.capacity },
      labels: options.labels ?? {},
      tainted: options.untainted !== true,
    });
    await untilReached(log, async () => await registration.register());
    serving.begin(server);
    const leaseMs = graceMs * MARGIN_SHARE;
    const loops = new NodeLoops({ api, name, pods, fence, registration, log, leaseMs });
    const { port } = server;
    const over = new AbortController();
    const { identity } = options;
    if ("replace" in identity) void rotate(identity, api, directory, log, over.signal);
    const closing = { server, serving, fence };
    return {
      name,
      address,
      port,
      adopted: pods.adopted,
      close: async () => {
        over.abort();
        closing.fence.close();
        closing.serving.close();
        await loops.close();
        await pods.release();
        await closing.server.close();
        api.close();
        lock.release();
      },
    };
  } catch (error) {
    fence?.close();
    serving?.close();
    await server?.close();
    api.close();
    lock.release();
    throw error;
  }
}

/** Try until the API server answers: a host that is started before it is a node all the same. */
async function untilReached(log: Log, task: () => Promise<void>): Promise<void> {
  for (let failures = 0; ; failures += 1) {
    try {
      await task();
      return;
    } catch (error) {
      const code = error instanceof VmsanError ? error.code : "";
      if (code !== "ERR_NODE_API") throw error;
      if (failures === 0) log.error("the API server is not there yet", error);
    }
    await sleep(RETRY_MS);
  }
}
