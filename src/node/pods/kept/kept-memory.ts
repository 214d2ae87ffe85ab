/**
 * Memory that outlives a pod: where its annotation asks for it, the VM of a pod that is removed falls asleep instead of
 * ending, and the next pod of the same name that is the same goes on in it. Its labels say whose it is: there is no
 * other list. One that sleeps so has no pod's label, and is nobody's to be ended.
 */
import type { Vm } from "../../../client/vm.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import { apiPath } from "../../../kube/api-server.ts";
import { POD_ANNOTATION, POD_PREFIX } from "../../../kube/pod-words.ts";
import { VmsanError } from "../../../model/errors.ts";
import type { VmView } from "../../../model/api.ts";
import type { Pod } from "../../../schema/pod.ts";
import { Mutex } from "../../../util/flow/mutex.ts";
import type { Log } from "../../../util/log.ts";
import { pressureOf } from "../../host/capacity.ts";
import { removeVm } from "../life/guest.ts";
import { LONGEST_MS } from "../life/timers.ts";
import { POD_NAME_LABEL, POD_NAMESPACE_LABEL, podLabels } from "../spec/plan.ts";
import { controllerOf, memoryKey } from "./key.ts";

/** Labels: what a pod has to be like to go on in it; when it fell asleep; the sandbox that it belongs to, and that one's UID. */
const KEY_LABEL = `${POD_PREFIX}memory-of`;
const SINCE_LABEL = `${POD_PREFIX}asleep-since`;
const SANDBOX_LABEL = `${POD_PREFIX}memory-sandbox`;
const SANDBOX_UID_LABEL = `${POD_PREFIX}memory-sandbox-uid`;

/** How many may sleep on a host when nothing is said. */
export const DEFAULT_KEPT = 16;
/** Share of them that one namespace may have. */
const NAMESPACE_SHARE = 0.5;
/** How long they are kept, in milliseconds: a week. */
const KEPT_MS = 7 * 86_400_000;
/** How long falling asleep may take, in milliseconds, where the pod's own grace is shorter. */
const SHORTEST_MS = 60_000;

/** Whether a pod wants its memory kept. */
export function wantsMemory(pod: Pod): boolean {
  return pod.metadata.annotations?.[POD_ANNOTATION.suspend] !== undefined;
}

/** Whether a VM is the memory of a pod that is gone. */
export function isKept({ labels }: VmView): boolean {
  return labels[KEY_LABEL] !== undefined;
}

/** Why memory is not kept. */
function notKept(pod: Pod, why: string): VmsanError {
  const { namespace, name } = pod.metadata;
  return new VmsanError({
    code: "ERR_NODE_NOT_KEPT",
    message: `The memory of ${namespace}/${name} is not kept`,
    why,
    fix: "docs/cluster.md says when it is: Suspension that keeps memory.",
  });
}

/** What it is made of. */
interface KeptMemoryParts {
  vmsan: Vmsan;
  most: number;
  log: Log;
  /** Whether an object of the cluster is surely no more, or another one has its place; false also where that is not known. */
  isGone: (path: string, uid: string) => Promise<boolean>;
  /**
   * UID of a pod's ServiceAccount. A namespace that is made anew under its name has new ones, and what was kept is not its own;
   * of the namespace itself nodes may know nothing.
   */
  accountOf: (pod: Pod) => Promise<string>;
  /** Whether the disk has room for more; default: as the node's condition says. */
  hasRoom?: () => Promise<boolean>;
}

/** Labels by which memory goes with the sandbox (agent-sandbox) that it belongs to. */
function sandboxLabels({ metadata }: Pod): Record<string, string> {
  const owner = controllerOf(metadata);
  if (owner?.kind !== "Sandbox" || !owner.apiVersion || !owner.name || !owner.uid) return {};
  const path = apiPath(owner.apiVersion, "namespaces", metadata.namespace, "sandboxes", owner.name);
  return { [SANDBOX_LABEL]: path, [SANDBOX_UID_LABEL]: owner.uid };
}

/** The sleeping VMs of this host. */
export class KeptMemory {
  private readonly vmsan: Vmsan;
  private readonly most: number;
  private readonly log: Log;
  private readonly isGone: (path: string, uid: string) => Promise<boolean>;
  private readonly accountOf: (pod: Pod) => Promise<string>;
  private readonly hasRoom: () => Promise<boolean>;
  /** Two at once must not both find the last place. */
  private readonly turn = new Mutex();
  /** Namespaces of those that are falling asleep. */
  private readonly falling: string[] = [];

  /** @param parts `most`: how many may sleep at a time, 0: none */
  constructor({ vmsan, most, log, isGone, accountOf, hasRoom }: KeptMemoryParts) {
    this.vmsan = vmsan;
    this.most = most;
    this.log = log;
    this.isGone = isGone;
    this.accountOf = accountOf;
    this.hasRoom = hasRoom ?? (async () => !(await pressureOf(vmsan.daemon.layout.root)).disk);
  }

  /** What is kept under a pod's name. */
  private async namedAs({ metadata }: Pod): Promise<VmView[]> {
    return (await this.sleeping()).filter(
      ({ labels }) =>
        labels[POD_NAMESPACE_LABEL] === metadata.namespace &&
        labels[POD_NAME_LABEL] === metadata.name,
    );
  }

  /** All, the oldest first. */
  private async sleeping(): Promise<VmView[]> {
    const since = ({ labels }: VmView): string => labels[SINCE_LABEL] ?? "";
    return (await this.vmsan.list())
      .filter(isKept)
      .toSorted((a, b) => since(a).localeCompare(since(b)));
  }

  /**
   * Have the VM of a pod that is being removed fall asleep, and be kept for the next pod of its name.
   * @param graceSeconds how long the pod may take to end
   * @throws when it is not kept; the VM then goes on, or is not asked any more
   */
  async keep(pod: Pod, vm: Vm, graceSeconds: number): Promise<void> {
    const ports = pod.spec.containers.flatMap((container) => container.ports ?? []);
    // Whoever connects there would wake it, without a pod.
    if (ports.some(({ hostPort }) => hostPort)) throw notKept(pod, "It has a hostPort.");
    const { namespace, name } = pod.metadata;
    // Of a namespace that is being removed the account is gone already, and nothing is kept.
    const key = memoryKey(pod, await this.accountOf(pod));
    await this.turn.run(async () => {
      if (!(await this.hasRoom())) throw notKept(pod, "The disk of this host has little room.");
      await this.makeRoom(pod);
      this.falling.push(namespace);
    });
    try {
      const ms = Math.min(Math.max(SHORTEST_MS, graceSeconds * 1000), LONGEST_MS);
      const signal = AbortSignal.timeout(ms);
      await vm.suspend({ signal });
      await vm.update({
        labels: {
          [POD_NAMESPACE_LABEL]: namespace,
          [POD_NAME_LABEL]: name,
          [KEY_LABEL]: key,
          [SINCE_LABEL]: new Date().toISOString(),
          ...sandboxLabels(pod),
        },
      });
    } finally {
      this.falling.splice(this.falling.indexOf(namespace), 1);
    }
  }

  /** A namespace's own oldest makes room for one more of it; another's never does. */
  private async makeRoom(pod: Pod): Promise<void> {
    const { namespace, name } = pod.metadata;
    const all = await this.sleeping();
    const own = all.filter(({ labels }) => labels[POD_NAMESPACE_LABEL] === namespace);
    const mine = own.filter(({ labels }) => labels[POD_NAME_LABEL] === name);
    for (const { id } of mine) await this.forget(id, "another memory of its pod takes its place");
    const rest = own.filter((view) => !mine.includes(view));
    const limit = Math.ceil(this.most * NAMESPACE_SHARE);
    const soon = this.falling.filter((other) => other === namespace).length;
    const total = all.length - mine.length + this.falling.length;
    if (rest.length + soon < limit && total < this.most) return;
    const [oldest] = rest;
    if (oldest === undefined) {
      throw notKept(pod, `This host keeps the memory of ${this.most} pods at most, and does.`);
    }
    await this.forget(oldest.id, "a younger one of its namespace takes its place");
  }

  /**
   * The VM in which a pod goes on; it is the pod's from now on, and sleeps still. What is kept under the pod's name and
   * does not fit it is removed.
   * @param complain told why it is none
   * @returns undefined when there is none
   */
  async take(pod: Pod, complain: (why: string) => void): Promise<Vm | undefined> {
    if ((await this.namedAs(pod)).length === 0) return undefined;
    const key = memoryKey(pod, await this.accountOf(pod));
    return await this.turn.run(async () => {
      const mine = await this.namedAs(pod);
      const found = mine.findLast(
        ({ labels, status }) => labels[KEY_LABEL] === key && status === "suspended",
      );
      for (const view of mine) {
        if (view !== found) await this.forget(view.id, "the pod of its name is another one");
      }
      if (found === undefined) {
        if (mine.length > 0)
          complain("what is kept is of a pod with another specification or account");
        return undefined;
      }
      const vm = await this.vmsan.get(found.id);
      await vm.update({ labels: podLabels(pod) });
      return vm;
    });
  }

  /** Remove those that nobody has come for, whose sandbox is no more, and any that have woken or ended. */
  async sweep(): Promise<void> {
    const oldest = new Date(Date.now() - KEPT_MS).toISOString();
    await this.turn.run(async () => {
      for (const { id, labels, status } of await this.sleeping()) {
        const late = (labels[SINCE_LABEL] ?? "") < oldest;
        const { [SANDBOX_LABEL]: path, [SANDBOX_UID_LABEL]: uid = "" } = labels;
        if (late) await this.forget(id, "nobody has come for it in a week");
        else if (path !== undefined && (await this.isGone(path, uid)))
          await this.forget(id, "its sandbox is no more");
        else if (status !== "suspended") await this.forget(id, `it is ${status}`);
      }
    });
  }

  private async forget(id: string, why: string): Promise<void> {
    this.log.info(`removing ${id}, the memory of a pod: ${why}`);
    await removeVm(this.vmsan, id);
  }
}
