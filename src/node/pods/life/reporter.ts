/** What the API server is told of one pod: its status as it changes, events, and that it is no more. */
import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Pod } from "../../../schema/pod.ts";
import type { Log } from "../../../util/log.ts";
import { PATCH_TYPE, apiPath, isStatus } from "../../../kube/api-server.ts";
import type { ApiServer } from "../../../kube/api-server.ts";
import { essenceOf, seconds } from "./state.ts";

/** Pauses before an API server that does not answer is asked again, in milliseconds. */
const PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 10_000;
/** How long the same event is not told again, in milliseconds. */
const SAME_EVENT_MS = 600_000;

/** Whom the reports are of and from. */
export interface ReporterContext {
  api: ApiServer;
  node: string;
  log: Log;
}

/** Tells of one pod. */
export class Reporter {
  private readonly context: ReporterContext;
  private readonly uid: string;
  private readonly namespace: string;
  private readonly name: string;
  private told: string;
  private wanted: object | undefined;
  private sending: Promise<void> | undefined;
  private readonly gone = new AbortController();
  private readonly events = new Map<string, number>();

  /** @param pod as the API server has it */
  constructor(context: ReporterContext, pod: Pod) {
    this.context = context;
    const { uid, namespace, name } = pod.metadata;
    this.uid = uid;
    this.namespace = namespace;
    this.name = name;
    this.told = essenceOf(pod.status);
  }

  private path(...rest: string[]): string {
    return apiPath("v1", "namespaces", this.namespace, "pods", this.name, ...rest);
  }

  /** Tell a status, the newest of those that have not been told yet. */
  status(status: object): void {
    this.wanted = status;
    this.sending ??= this.send().finally(() => (this.sending = undefined));
  }

  /** Tell a status, also when it was told before. */
  again(status: object): void {
    this.told = "";
    this.status(status);
  }

  /** Resolves once the API server knows the last status, or the pod is no more. */
  async flush(): Promise<void> {
    await this.sending;
  }

  /** The pod is no more: nothing is told any longer. */
  end(): void {
    this.gone.abort();
  }

  private async send(): Promise<void> {
    let failures = 0;
    while (this.wanted !== undefined && !this.gone.signal.aborted) {
      const status = this.wanted;
      this.wanted = undefined;
      const essence = essenceOf(status);
      if (essence === this.told) continue;
      try {
        await this.context.api.request("PATCH", this.path("status"), {
          // With its UID: a pod of the same name that was made anew is another one.
          body: { metadata: { uid: this.uid }, status },
          type: PATCH_TYPE.strategic,
          signal: this.gone.signal,
        });
        this.told = essence;
        failures = 0;
      } catch (error) {
        if (this.gone.signal.aborted || isStatus(error, 404, 409)) return;
        if (failures === 0) this.complain("cannot tell its status", error);
        this.wanted ??= status;
        failures += 1;
        await this.pause(failures);
      }
    }
  }

  private complain(what: string, error: unknown): void {
    this.context.log.error(`pod ${this.namespace}/${this.name}: ${what}`, error);
  }

  private async pause(failures: number): Promise<void> {
    const ms = Math.min(LONGEST_PAUSE_MS, PAUSE_MS * 2 ** Math.min(failures, 10));
    // AbortError: the pod is no more.
    await sleep(ms, undefined, { signal: this.gone.signal }).catch(() => undefined);
  }

  /** Tell an event; the same one only now and then. */
  event(type: "Normal" | "Warning", reason: string, message: string): void {
    const key = `${reason} ${message}`;
    const now = performance.now();
    if (now - (this.events.get(key) ?? -Infinity) < SAME_EVENT_MS) return;
    this.events.set(key, now);
    if (this.events.size > 50) this.events.clear();
    const { node, api } = this.context;
    const at = seconds();
    const body = {
      apiVersion: "v1",
      kind: "Event",
      metadata: {
        name: `${this.name.slice(0, 230)}.${randomBytes(8).toString("hex")}`,
        namespace: this.namespace,
      },
      involvedObject: {
        apiVersion: "v1",
        kind: "Pod",
        name: this.name,
        namespace: this.namespace,
        uid: this.uid,
      },
      type,
      reason,
      message: message.slice(0, 1000),
      firstTimestamp: at,
      lastTimestamp: at,
      count: 1,
      source: { component: "vmsan", host: node },
      reportingComponent: "vmsan",
      reportingInstance: node,
    };
    const path = apiPath("v1", "namespaces", this.namespace, "events");
    // An event that is lost is only not read; a namespace that is being removed takes none. 409: it was told the first time.
    void api.request("POST", path, { body, repeat: true }).catch((error: unknown) => {
      if (!isStatus(error, 409)) this.complain(`cannot tell of ${reason}`, error);
    });
  }

  /** Have the API server remove the pod as a user does, which this node then hears of; tried until that is so. */
  askForRemoval(): void {
    const ask = async (): Promise<void> => {
      for (let failures = 0; !this.gone.signal.aborted; failures += 1) {
        if (failures > 0) await this.pause(failures);
        try {
          await this.context.api.request("DELETE", this.path(), {
            body: {
              apiVersion: "v1",
              kind: "DeleteOptions",
              preconditions: { uid: this.uid },
            },
            signal: this.gone.signal,
          });
          return;
        } catch (error) {
          if (this.gone.signal.aborted || isStatus(error, 404, 409)) return;
          if (failures === 0) this.complain("cannot have it removed", error);
        }
      }
    };
    void ask().catch((error: unknown) => this.complain("cannot have it removed", error));
  }

  /** Have the pod's object removed, since nothing of it is here any more; resolves once that is done. */
  async remove(): Promise<void> {
    let failures = 0;
    while (!this.gone.signal.aborted) {
      try {
        await this.context.api.request("DELETE", this.path(), {
          body: {
            apiVersion: "v1",
            kind: "DeleteOptions",
            gracePeriodSeconds: 0,
            preconditions: { uid: this.uid },
          },
          signal: this.gone.signal,
        });
        return;
      } catch (error) {
        if (this.gone.signal.aborted) return;
        // An API server that has just been started says 404 of pods that are there: what it lets nodes do is decided by
        // what it has read so far. 409: somebody else has written to it, or it is another pod's object by now.
        if (isStatus(error, 404, 409) && (await this.isGone())) return;
        if (failures === 0) this.complain("cannot remove its object", error);
        failures += 1;
        await this.pause(failures);
      }
    }
  }

  /** Whether there is no object of this name any more, or it is none of this pod's. */
  private async isGone(): Promise<boolean> {
    try {
      const found = await this.context.api.request("GET", this.path(), {
        signal: this.gone.signal,
      });
      return (found as { metadata?: { uid?: string } }).metadata?.uid !== this.uid;
    } catch (error) {
      return isStatus(error, 404);
    }
  }
}
