/**
 * cluster/: the daemon's API with pods of a Kubernetes cluster for VMs, for the SDK's client: so that its objects and
 * every command work on many hosts as on one. Takes calls, gives what the daemon would; the hosts' own `vmsan node`
 * does the work. What reaches into a guest goes to its host by a session of the pod (tunnel.ts); what the API server
 * knows is asked there.
 *
 * backend.ts: which call means what.
 */
import type { Duplex, Readable } from "node:stream";
import { isDeepStrictEqual } from "node:util";
import type { ClusterOptions } from "./options.ts";
import { Transport } from "../client/transport.ts";
import type { Backend, CallOptions, StreamedCallOptions } from "../client/transport.ts";
import { isStatus } from "../kube/api-server.ts";
import { KubeClient } from "../kube/client.ts";
import { serviceAccount } from "../kube/identity.ts";
import type { Identity } from "../kube/identity.ts";
import { readKubeconfig } from "../kube/kubeconfig.ts";
import type { CreateRequest, VmView } from "../model/api.ts";
import { VmsanError } from "../model/errors.ts";
import type { NetworkPolicy } from "../model/policy.ts";
import { POD_ANNOTATION, POD_MAIN_LABEL, WAIT_COMMAND } from "../kube/pod-words.ts";
import type { VmSample } from "../model/stats.ts";
import type { Pod } from "../schema/pod.ts";
import { packageVersion } from "../util/package.ts";
import { notRunning, notStopped } from "./errors.ts";
import { Holds } from "./holds.ts";
import { endAnnotations, policyAnnotations } from "./manifest.ts";
import { settledPolicy } from "./policy.ts";
import { podLog } from "./log.ts";
import { ClusterPods } from "./pods.ts";
import { noSuchCall, unsupported } from "./refused.ts";
import { tunnelTo } from "./tunnel.ts";
import { hasCommand, idOf, statusOf, viewOf } from "./view.ts";

/** Pods whose figures are asked for at once. */
const SAMPLED = 16;

/** Most pods that are remembered, to be found without a question. */
const REMEMBERED = 10_000;

/** A path of the daemon's API about one VM: its reference, and what follows. */
const VM = /^\/v1\/vms\/([a-z0-9][a-z0-9._-]{0,62})(\/[^?]*)?(\?.*)?$/;

/** Calls to a pod's host, which answers them as a daemon does. */
const OF_HOST = /^\/(?:agent\/.*|console|decisions|ssh)$/;

/** Commands of a VM without what its pod is kept by: whoever ended that would end the pod. */
function withoutWait(reply: unknown): unknown {
  type Stream = { label?: string; argv?: readonly string[] };
  const { streams } = (reply ?? {}) as { streams?: Stream[] };
  if (!Array.isArray(streams)) return reply;
  const isWait = ({ label, argv }: Stream): boolean =>
    label === POD_MAIN_LABEL && isDeepStrictEqual(argv, WAIT_COMMAND);
  return { streams: streams.filter((stream) => !isWait(stream)) };
}

/** A cluster. */
class ClusterBackend implements Backend {
  readonly remote = true;
  private readonly api: KubeClient;
  private readonly pods: ClusterPods;
  private readonly holds: Holds;
  /** Pods by the ID of their VM; that it is still the same one its host makes sure of. */
  private readonly known = new Map<string, Pod>();

  constructor(identity: Identity, namespace: string) {
    this.api = new KubeClient(identity, (error) => this.pods.complain(error));
    this.pods = new ClusterPods(this.api, namespace);
    this.holds = new Holds(this.pods);
  }

  private remember(pod: Pod): Pod {
    if (this.known.size >= REMEMBERED) this.known.clear();
    if (statusOf(pod) === "running") this.known.set(idOf(pod), pod);
    return pod;
  }

  private async find(ref: string): Promise<Pod> {
    return this.remember(await this.pods.find(ref));
  }

  /** The way to the API of a pod's VM. @throws ERR_VM_NOT_RUNNING */
  private host(pod: Pod): Transport {
    const { namespace, name, uid } = pod.metadata;
    const status = statusOf(pod);
    if (status !== "running") throw notRunning(idOf(pod), status);
    const container = pod.spec.containers[0]?.name ?? "";
    return new Transport(tunnelTo(this.api, { namespace, name, uid, container }));
  }

  /** Ask a pod's host; when what is remembered of the pod is not true any more, once more. */
  private async atHost<T>(ref: string, ask: (host: Transport) => Promise<T>): Promise<T> {
    const known = this.known.get(ref);
    if (known !== undefined) {
      try {
        return await ask(this.host(known));
      } catch (error) {
        // Another pod has its name, or its container does not run: what it is now says more.
        const gone = error instanceof VmsanError && error.code === "ERR_VM_NOT_FOUND";
        if (!gone && !isStatus(error, 400)) throw error;
        this.known.delete(ref);
      }
    }
    return await ask(this.host(await this.find(ref)));
  }

  /** A pod as a VM, with what its host says of it while it runs. */
  private async view(pod: Pod): Promise<VmView> {
    if (statusOf(pod) !== "running") return viewOf(pod);
    try {
      return viewOf(pod, await this.host(pod).call<VmView>("GET", "/v1/vm"));
    } catch (error) {
      // Its container has ended since.
      if (!isStatus(error, 400)) throw error;
      return viewOf(await this.pods.find(idOf(pod)));
    }
  }

  async call<T>(method: string, path: string, options: CallOptions = {}): Promise<T> {
    return (await this.answer(method, path, options)) as T;
  }

  private async answer(method: string, path: string, options: CallOptions): Promise<unknown> {
    if (method === "GET" && path === "/v1/version") {
      return { version: packageVersion(), pid: 0, root: this.api.url, protocol: 1 };
    }
    if (method === "GET" && /^\/v1\/vms(?:\?|$)/.test(path)) {
      const project = new URLSearchParams(path.split("?")[1]).get("project");
      const views = (await this.pods.list()).map((pod) => viewOf(pod));
      return { vms: views.filter((view) => project === null || view.project === project) };
    }
    if (method === "GET" && path.startsWith("/v1/stats?")) return await this.stats(path);
    const [, ref = "", rest = "", query = ""] = VM.exec(path) ?? [];
    if (ref === "") throw noSuchCall(method, path);
    if (OF_HOST.test(rest)) {
      const reply = await this.atHost(
        ref,
        async (host) => await host.call(method, `/v1/vm${rest}${query}`, options),
      );
      return `${method} ${rest}` === "GET /agent/v1/streams" ? withoutWait(reply) : reply;
    }
    switch (`${method} ${rest}`) {
      case "GET ":
        return await this.view(await this.find(ref));
      case "DELETE ":
        return await this.remove(ref, query === "?force=true", options.signal);
      case "POST /stop":
        return await this.stop(ref, options.signal);
      case "POST /timeout":
        return await this.extend(ref, (options.body as { timeoutMs?: number }).timeoutMs);
      case "PUT /policy":
        return await this.setPolicy(ref, options.body as NetworkPolicy, options.signal);
      default:
        throw noSuchCall(method, path);
    }
  }

  async download(method: string, path: string, options: CallOptions = {}): Promise<Readable> {
    const [, ref = "", rest = "", query = ""] = VM.exec(path) ?? [];
    if (ref === "" || !OF_HOST.test(rest)) throw noSuchCall(method, path);
    if (rest === "/console") {
      const pod = await this.find(ref);
      if (hasCommand(pod)) return await podLog(this.api, pod, query, options.signal);
    }
    return await this.atHost(
      ref,
      async (host) => await host.download(method, `/v1/vm${rest}${query}`, options),
    );
  }

  async upgrade(path: string, signal?: AbortSignal, patienceMs?: number): Promise<Duplex> {
    const [, ref = "", rest = ""] = VM.exec(path) ?? [];
    if (ref === "") throw noSuchCall("POST", path);
    return await this.atHost(
      ref,
      async (host) => await host.upgrade(`/v1/vm${rest}`, signal, patienceMs),
    );
  }

  async streamed<T>(method: string, path: string, options: StreamedCallOptions): Promise<T> {
    if (method === "POST" && path === "/v1/vms") return (await this.create(options)) as T;
    const [, ref = "", rest = ""] = VM.exec(path) ?? [];
    if (method !== "GET" || ref === "" || rest !== "/hold") throw noSuchCall(method, path);
    const pod = await this.find(ref);
    const view = await this.view(pod);
    this.holds.take(pod, options);
    return view as T;
  }

  /** Make a VM and wait until it runs; nothing is left when it does not. */
  private async create(options: StreamedCallOptions): Promise<VmView> {
    const request = options.body as CreateRequest;
    const { onProgress, onVm, signal = new AbortController().signal } = options;
    signal.throwIfAborted();
    const pod = await this.pods.make(request, (id) => onVm?.(id));
    try {
      const now = await this.pods.running(pod, signal, (message) =>
        onProgress?.({ phase: "schedule", item: pod.metadata.name, message }),
      );
      const { timeoutMs } = request;
      // Its time counts from now on, not from when a host was looked for.
      const limited =
        timeoutMs === undefined
          ? now
          : await this.pods.annotate(now, endAnnotations(Date.now() + timeoutMs, timeoutMs));
      if (request.ephemeral) await this.holds.begin(now, options);
      return await this.view(this.remember(limited));
    } catch (error) {
      this.holds.end(pod.metadata.uid);
      // What cannot be removed either ends by its own time, or is seen in the list.
      await this.pods.remove(pod).catch(() => undefined);
      throw error;
    }
  }

  private async remove(ref: string, force: boolean, signal?: AbortSignal): Promise<void> {
    const pod = await this.find(ref);
    if (!force && statusOf(pod) === "running") throw notStopped(ref);
    this.known.delete(idOf(pod));
    this.holds.end(pod.metadata.uid);
    await this.pods.remove(pod, signal);
  }

  /** End it: its pod has succeeded then, and stays to be looked at until it is removed. */
  private async stop(ref: string, signal?: AbortSignal): Promise<void> {
    const pod = await this.find(ref);
    const status = statusOf(pod);
    if (status !== "running") throw notRunning(ref, status);
    if (hasCommand(pod)) {
      throw unsupported(
        "stop of a pod with a command of its own",
        "Kubernetes ends a pod by its removal alone, and its owner may start another.",
        `Remove it: vmsan --cluster rm -f ${ref}`,
      );
    }
    this.known.delete(idOf(pod));
    await this.pods.annotate(pod, {
      [POD_ANNOTATION.endsAt]: new Date().toISOString(),
      [POD_ANNOTATION.atEnd]: "stop",
      [POD_ANNOTATION.timeout]: null,
    });
    await this.pods.ended(pod, signal ?? new AbortController().signal);
  }

  private async extend(ref: string, timeoutMs: number | undefined): Promise<VmView> {
    const pod = await this.find(ref);
    const status = statusOf(pod);
    if (status !== "running") throw notRunning(ref, status);
    const own = Number(pod.metadata.annotations?.[POD_ANNOTATION.timeout] ?? Number.NaN);
    const limit = timeoutMs ?? own;
    if (Number.isNaN(limit)) return await this.view(pod);
    const annotations = endAnnotations(Date.now() + limit, limit);
    return await this.view(this.remember(await this.pods.annotate(pod, annotations)));
  }

  /** Put a policy in force, and wait until its host says so. */
  private async setPolicy(
    ref: string,
    policy: NetworkPolicy,
    signal?: AbortSignal,
  ): Promise<VmView> {
    const pod = await this.find(ref);
    const host = this.host(pod);
    const now = this.remember(await this.pods.annotate(pod, policyAnnotations(policy)));
    const own = await settledPolicy(host, policy, signal);
    return viewOf(now, own);
  }

  /** Figures of VMs, from their hosts. */
  private async stats(path: string): Promise<{ vms: VmSample[] }> {
    const query = new URL(path, "http://cluster").searchParams;
    const refs = query.getAll("vm");
    const project = query.get("project");
    const wanted =
      refs.length > 0
        ? await Promise.all(refs.map(async (ref) => await this.find(ref)))
        : await this.pods.list();
    const pods = wanted.filter(
      (pod) => statusOf(pod) === "running" && (project === null || viewOf(pod).project === project),
    );
    const vms: VmSample[] = [];
    for (let at = 0; at < pods.length; at += SAMPLED) {
      const some = pods.slice(at, at + SAMPLED).map(async (pod) => await this.sample(pod));
      vms.push(...(await Promise.all(some)));
    }
    return { vms };
  }

  /** What one VM uses; nothing of that where its host does not say. */
  private async sample(pod: Pod): Promise<VmSample> {
    const { id, name, project, status, vcpus, memMib } = viewOf(pod);
    const known = { id, project, ...(name === undefined ? {} : { name }) };
    const at = new Date().toISOString();
    try {
      type Reply = { vms: VmSample[] };
      const { vms } = await this.host(pod).call<Reply>("GET", "/v1/vm/stats");
      return { status, at, vcpus, memMib, ...vms[0], ...known };
    } catch {
      // Whatever its host says instead: a sample without figures tells, and must not hide the others.
      return { status, at, vcpus, memMib, ...known };
    }
  }
}

/** Who this process is in a cluster: as a kubeconfig says, else as its pod's ServiceAccount. */
async function accessOf({
  kubeconfig: file,
  context,
}: ClusterOptions): Promise<{ identity: Identity; namespace: string }> {
  try {
    return await readKubeconfig({
      ...(file === undefined ? {} : { file }),
      ...(context === undefined ? {} : { context }),
    });
  } catch (error) {
    const named = file !== undefined || context !== undefined;
    if (named || (process.env["KUBERNETES_SERVICE_HOST"] ?? "") === "") throw error;
    return { identity: await serviceAccount(process.env), namespace: "default" };
  }
}

/** A cluster's pods as VMs. @throws ERR_NODE_KUBECONFIG, ERR_VALIDATION_FLAGS */
export async function openCluster(options: ClusterOptions): Promise<Backend> {
  const { identity, namespace } = await accessOf(options);
  return new ClusterBackend(identity, options.namespace ?? namespace);
}
