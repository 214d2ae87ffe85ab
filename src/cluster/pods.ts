/** Pods of one namespace that have VMs: found, made, changed, removed, each with the end of it awaited. */
import type { CreateRequest } from "../model/api.ts";
import { VmsanError, messageOf } from "../model/errors.ts";
import { VM_ID_LABEL } from "../kube/pod-words.ts";
import { PATCH_TYPE, apiPath, isStatus } from "../kube/api-server.ts";
import type { ApiServer } from "../kube/api-server.ts";
import { listSchema } from "../schema/kubernetes-list.ts";
import { podSchema } from "../schema/pod.ts";
import type { Pod } from "../schema/pod.ts";
import { validate } from "../schema/validate.ts";
import { isVmId, newVmId } from "../util/names.ts";
import { vmNotFound } from "./errors.ts";
import { podFor } from "./manifest.ts";
import { containerState, idOf, isOurs, statusOf } from "./view.ts";

/** Seconds between TERM and KILL for what is removed by force; none would leave the VM to its host. */
const REMOVE_SECONDS = 1;
/** How long a host may take for that, in milliseconds. */
const REMOVE_MS = 120_000;
/** How long a pod may wait for a host, in milliseconds. */
const SCHEDULE_MS = 300_000;

/** What a node says of a container that will not come up by waiting. */
const HOPELESS: Record<string, string> = {
  ErrImagePull: "ERR_IMAGE_NETWORK",
  ImagePullBackOff: "ERR_IMAGE_NETWORK",
  ErrImageNeverPull: "ERR_IMAGE_NOT_FOUND",
  InvalidImageName: "ERR_IMAGE_REFERENCE",
  CreateContainerConfigError: "ERR_CLUSTER_POD",
};

function parse(object: unknown): Pod {
  return validate(podSchema, object, "pod", "ERR_CLUSTER_POD");
}

/** A pod that did not become a running VM. */
function failed(pod: Pod, code: string, why: string): VmsanError {
  return new VmsanError({
    code,
    message: `The pod ${pod.metadata.namespace}/${pod.metadata.name} has not started`,
    why: why.slice(0, 2000),
    fix: "Mend what it says; `kubectl get events` has more of it.",
  });
}

/** Why a pod has no host yet; undefined: it has one. */
function unscheduled({ status }: Pod): string | undefined {
  type Condition = { type?: string; status?: string; message?: string };
  const conditions = (status?.["conditions"] ?? []) as Condition[];
  const found = conditions.find(({ type }) => type === "PodScheduled");
  return found?.status === "False" ? (found.message ?? "no reason is given") : undefined;
}

/** The pods of a namespace. */
export class ClusterPods {
  private readonly api: ApiServer;
  private readonly namespace: string;
  /** Whoever waits for something of a pod. */
  private readonly waiting = new Set<AbortController>();

  constructor(api: ApiServer, namespace: string) {
    this.api = api;
    this.namespace = namespace;
  }

  /** A watch has failed: one that may not be made is not waited for. */
  readonly complain = (error: unknown): void => {
    if (isStatus(error, 401, 403)) for (const wait of this.waiting) wait.abort(error);
  };

  private path(...words: string[]): string {
    return apiPath("v1", "namespaces", this.namespace, "pods", ...words);
  }

  /** All that have VMs or will have one. @param selector of labels */
  async list(selector?: string): Promise<Pod[]> {
    const query = selector === undefined ? "" : `?labelSelector=${encodeURIComponent(selector)}`;
    const list = await this.api.request("GET", `${this.path()}${query}`);
    const { items } = validate(listSchema, list, "list of pods", "ERR_CLUSTER_POD");
    return (items ?? []).map(parse).filter(isOurs);
  }

  /** One by its name; undefined: there is none, or it has no VM. */
  private async named(name: string): Promise<Pod | undefined> {
    try {
      const pod = parse(await this.api.request("GET", this.path(name)));
      return isOurs(pod) ? pod : undefined;
    } catch (error) {
      if (isStatus(error, 404)) return undefined;
      throw error;
    }
  }

  /** One by the ID or the name of its VM. @throws ERR_VM_NOT_FOUND */
  async find(ref: string): Promise<Pod> {
    const named = await this.named(ref);
    if (named !== undefined && (!isVmId(ref) || idOf(named) === ref)) return named;
    if (isVmId(ref)) {
      const [labelled] = await this.list(`${VM_ID_LABEL}=${ref}`);
      const found = labelled ?? (await this.list()).find((pod) => idOf(pod) === ref);
      if (found !== undefined) return found;
    }
    throw vmNotFound(ref);
  }

  /** Have a pod made. @param onId told the VM's ID once it is there */
  async make(request: CreateRequest, onId: (id: string) => void): Promise<Pod> {
    const id = newVmId();
    const body = podFor(request, id, Date.now());
    try {
      const pod = parse(await this.api.request("POST", this.path(), { body }));
      onId(id);
      return pod;
    } catch (error) {
      if (!isStatus(error, 409)) throw error;
      const { name } = body.metadata;
      throw new VmsanError(
        {
          code: "ERR_VM_NAME_TAKEN",
          message: `Cannot create a VM named ${name}`,
          why: `The namespace ${this.namespace} has a pod of that name.`,
          fix: `Choose another name, or remove that pod: vmsan --cluster rm -f ${name}`,
        },
        error,
      );
    }
  }

  /** What becomes of a pod until something is so. @param look says what it makes of each state; undefined: go on */
  private async until<T>(
    pod: Pod,
    signal: AbortSignal,
    look: (now: Pod | undefined) => T | undefined,
  ): Promise<T> {
    const selector = `fieldSelector=metadata.name%3D${encodeURIComponent(pod.metadata.name)}`;
    const over = new AbortController();
    const both = AbortSignal.any([over.signal, signal]);
    this.waiting.add(over);
    try {
      for await (const step of this.api.watch(`${this.path()}?${selector}`, both)) {
        const objects = step.kind === "all" ? step.objects : [step.object];
        const mine = objects.map(parse).find(({ metadata }) => metadata.uid === pod.metadata.uid);
        // Of another pod nothing follows, and a list without it says that it is gone.
        if (step.kind !== "all" && mine === undefined) continue;
        const result = look(step.kind === "gone" ? undefined : mine);
        if (result !== undefined) return result;
      }
      both.throwIfAborted();
      throw new TypeError("A watch that has ended by itself");
    } finally {
      this.waiting.delete(over);
      over.abort();
    }
  }

  /**
   * Wait until a pod's VM runs.
   * @param onWait told what it waits for
   * @throws what its node or the scheduler says, when it will not
   */
  async running(pod: Pod, signal: AbortSignal, onWait: (why: string) => void): Promise<Pod> {
    const late = AbortSignal.timeout(SCHEDULE_MS);
    let waits: string | undefined;
    try {
      const limit = new AbortController();
      const tooLate = (): void => {
        if (waits !== undefined) limit.abort();
      };
      late.addEventListener("abort", tooLate, { once: true });
      return await this.until(pod, AbortSignal.any([signal, limit.signal]), (now) => {
        if (now === undefined) throw failed(pod, "ERR_VM_NOT_FOUND", "It was removed meanwhile.");
        const status = statusOf(now);
        if (status === "running") return now;
        const { reason, message } = (now.status ?? {}) as { reason?: string; message?: string };
        if (status !== "creating") {
          throw failed(now, "ERR_CLUSTER_POD", message ?? reason ?? "It has ended at once.");
        }
        const waiting = containerState(now).state?.waiting;
        const code = HOPELESS[waiting?.reason ?? ""];
        if (code !== undefined) throw failed(now, code, waiting?.message ?? waiting?.reason ?? "");
        waits = unscheduled(now);
        if (waits !== undefined && late.aborted) limit.abort();
        onWait(waits === undefined ? (waiting?.reason ?? "Pending") : `no host yet: ${waits}`);
        return undefined;
      });
    } catch (error) {
      if (signal.aborted || waits === undefined || !late.aborted) throw error;
      throw failed(pod, "ERR_CLUSTER_UNSCHEDULABLE", waits);
    }
  }

  /** Wait until a pod has ended. */
  async ended(pod: Pod, signal: AbortSignal): Promise<void> {
    await this.until(pod, signal, (now) => {
      const over = now === undefined || statusOf(now) === "stopped" || statusOf(now) === "error";
      return over ? true : undefined;
    });
  }

  /** Say something else of it; null takes an annotation away. */
  async annotate(pod: Pod, annotations: Record<string, string | null>): Promise<Pod> {
    const { name, uid } = pod.metadata;
    // With its UID: a pod of the same name that was made anew is another one.
    const body = { metadata: { uid, annotations } };
    try {
      return parse(
        await this.api.request("PATCH", this.path(name), { body, type: PATCH_TYPE.merge }),
      );
    } catch (error) {
      if (isStatus(error, 404, 409)) throw vmNotFound(name, error);
      throw error;
    }
  }

  /**
   * Remove it, and wait until nothing of it is left.
   * @throws ERR_VM_NOT_FOUND, ERR_CLUSTER_HOST when its host does not confirm it
   */
  async remove(pod: Pod, signal?: AbortSignal): Promise<void> {
    const { name, uid } = pod.metadata;
    try {
      await this.api.request("DELETE", this.path(name), {
        body: {
          apiVersion: "v1",
          kind: "DeleteOptions",
          gracePeriodSeconds: REMOVE_SECONDS,
          preconditions: { uid },
        },
      });
    } catch (error) {
      if (isStatus(error, 404, 409)) throw vmNotFound(name, error);
      throw error;
    }
    const limit = AbortSignal.timeout(REMOVE_MS);
    const both = signal === undefined ? limit : AbortSignal.any([signal, limit]);
    try {
      await this.until(pod, both, (now) => (now === undefined ? true : undefined));
    } catch (error) {
      if (!limit.aborted || signal?.aborted === true) throw error;
      throw new VmsanError(
        {
          code: "ERR_CLUSTER_HOST",
          message: `The removal of ${name} is not confirmed`,
          why: `Its host ${pod.spec.nodeName ?? ""} has not said within ${REMOVE_MS / 1000} s that the VM is gone: ${messageOf(error)}`,
          fix: "Look whether the host is there: kubectl get nodes. The pod goes once it is back.",
        },
        error,
      );
    }
  }
}
