/**
 * pods/: keeps the pods that the API server has bound to this node and the VMs of this host the same.
 * spec/ makes a VM's options of a pod, files/ its volumes, starting/ has it come up or finds it, life/ leads it from there to
 * its end, probes/ looks at it meanwhile, kept/ has its memory outlive it.
 *
 * pods.ts: all of them: which are to run, which run, and what is there that nobody wants.
 */
import type { Vm } from "../../client/vm.ts";
import { podSchema } from "../../schema/pod.ts";
import type { Pod, PodRecord } from "../../schema/pod.ts";
import { Slots } from "../../util/flow/slots.ts";
import type { WatchStep } from "../../kube/api-server.ts";
import { PodImages } from "./starting/images.ts";
import type { ImagePeers } from "./starting/images.ts";
import { SharedObjects } from "./files/objects.ts";
import { isKept } from "./kept/kept-memory.ts";
import { removeVm } from "./life/guest.ts";
import { NodePod } from "./life/pod.ts";
import type { PodContext } from "./life/pod.ts";
import type { RunningPod, RunningPods } from "./running.ts";
import { POD_LABEL } from "./spec/plan.ts";
import { toleratedSeconds } from "./spec/tolerations.ts";

/** VMs that are being started at once, and taken away. */
const AT_ONCE = 16;

/** What the pods of a node share, and make for themselves. */
type Own = "starting" | "removing" | "images" | "objects";

/** The pods of this node. */
export class Pods implements RunningPods {
  private readonly context: PodContext;
  private readonly pods = new Map<string, NodePod>();
  private records: Map<string, PodRecord> | undefined;
  private ready: () => void = () => undefined;
  /** Resolves once all that ran here before has been taken up. */
  readonly adopted = new Promise<void>((resolve) => (this.ready = resolve));

  constructor({ peers, ...context }: Omit<PodContext, Own> & { peers?: ImagePeers }) {
    const images = new PodImages(context.vmsan, peers);
    const [starting, removing] = [new Slots(AT_ONCE), new Slots(AT_ONCE)];
    const objects = new SharedObjects(context.api);
    this.context = { ...context, starting, removing, images, objects };
  }

  find(namespace: string, name: string, container = ""): RunningPod | undefined {
    let found: NodePod | undefined;
    for (const pod of this.pods.values()) {
      if (pod.record.namespace !== namespace || pod.record.name !== name) continue;
      // Of two of the same name the older one is on its way out.
      found = pod;
    }
    return container === "" || found?.spec.name === container ? found?.view : undefined;
  }

  list(): RunningPod[] {
    return [...this.pods.values()].map(({ view }) => view);
  }

  /** All of them, for whoever has them stand still. */
  all(): NodePod[] {
    return [...this.pods.values()];
  }

  /** Take in what the API server tells. */
  async take(step: WatchStep): Promise<void> {
    if (step.kind === "all") await this.takeAll(step.objects);
    else {
      const pod = this.parse(step.object);
      if (pod === undefined) return;
      if (step.kind === "gone") this.forget(pod.metadata.uid);
      else this.set(pod, undefined);
    }
  }

  private parse(object: unknown): Pod | undefined {
    const parsed = podSchema.safeParse(object);
    if (parsed.success) {
      // Who has written which field is most of an object's size, and nobody's business here.
      delete parsed.data.metadata["managedFields"];
      return parsed.data;
    }
    const { metadata } = (object ?? {}) as { metadata?: { name?: unknown } };
    this.context.log.error(`cannot read pod ${String(metadata?.name)}`, parsed.error);
    return undefined;
  }

  private set(pod: Pod, vm: Vm | undefined): void {
    const { uid, namespace, name } = pod.metadata;
    const known = this.pods.get(uid);
    if (known !== undefined) {
      known.update(pod);
      return;
    }
    const tolerates = toleratedSeconds(pod);
    const record: PodRecord = this.records?.get(uid) ?? {
      uid,
      namespace,
      name,
      restarts: pod.status?.containerStatuses?.[0]?.restartCount ?? 0,
      ...(tolerates === undefined ? {} : { toleratesSeconds: tolerates }),
    };
    const made = new NodePod(pod, record, this.context);
    this.pods.set(uid, made);
    made.begin(vm);
  }

  private forget(uid: string): void {
    this.pods.get(uid)?.gone();
    this.pods.delete(uid);
  }

  /** All pods as they are: what is not among them goes, and so do VMs that are nobody's. */
  private async takeAll(objects: readonly unknown[]): Promise<void> {
    const pods = objects.flatMap((object) => this.parse(object) ?? []);
    const wanted = new Set(pods.map(({ metadata }) => metadata.uid));
    for (const uid of this.pods.keys()) if (!wanted.has(uid)) this.forget(uid);
    const first = this.records === undefined;
    const records = this.records ?? this.context.store.load(this.context.log);
    const vms = first ? await this.ownVms(records) : new Map<string, Vm>();
    // Not before: where they cannot be listed, all of it is done again, and no pod is begun without the VM that it has.
    this.records = records;
    for (const pod of pods) this.set(pod, vms.get(pod.metadata.uid));
    if (first) {
      this.records = new Map();
      await this.context.store.sweep((uid) => wanted.has(uid));
    }
    await this.sweep();
    this.ready();
  }

  /** VMs of this node's pods, by UID. Of two with one UID the older is none's. */
  private async ownVms(records: ReadonlyMap<string, PodRecord>): Promise<Map<string, Vm>> {
    const found = new Map<string, Vm>();
    for (const vm of await this.context.vmsan.vms()) {
      const uid = vm.view.labels[POD_LABEL];
      // One that was being made for a process that is gone is given up, and nothing has run in it.
      if (uid === undefined || vm.view.status === "creating") continue;
      const recorded = records.get(uid)?.vm;
      const other = found.get(uid);
      if (other === undefined || recorded === vm.id) found.set(uid, vm);
    }
    return found;
  }

  /** Remove VMs that no pod has: what an attempt that was cut off has left, or a pod that is gone. */
  async sweep(): Promise<void> {
    const views = await this.context.vmsan.list();
    if (views.some(isKept)) await this.context.kept.sweep();
    for (const view of views) {
      const uid = view.labels[POD_LABEL];
      if (uid === undefined) continue;
      const pod = this.pods.get(uid);
      // One that is being made is not known by its ID yet; its pod looks after it.
      if (pod !== undefined && (pod.record.vm === undefined || pod.record.vm === view.id)) continue;
      this.context.log.info(`removing ${view.id}, which no pod has`, { uid });
      await removeVm(this.context.vmsan, view.id).catch((error: unknown) =>
        this.context.log.error(`cannot remove ${view.id}`, error),
      );
    }
  }

  /** This process ends; pods go on. */
  async release(): Promise<void> {
    await Promise.all(this.all().map(async (pod) => await pod.release()));
  }
}
