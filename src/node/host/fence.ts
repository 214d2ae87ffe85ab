/**
 * The fence: a node that the API server has not heard of for a while is taken for dead, and its pods are
 * made anew elsewhere. Before that can happen their VMs here stand still, so that no pod runs twice. They
 * go on when the API server says that they are still this node's.
 */
import { readFile } from "node:fs/promises";
import { uptime } from "node:os";
import { join } from "node:path";
import type { Vmsan } from "../../client/vmsan.ts";
import type { PodRecord } from "../../schema/pod.ts";
import { writeFileAtomic } from "../../util/atomic.ts";
import type { Log } from "../../util/log.ts";
import { Slots } from "../../util/flow/slots.ts";
import { POD_LABEL } from "../pods/spec/plan.ts";

/**
 * Milliseconds on the clock by which silence is counted. It goes on while the machine sleeps, as the control plane's does, and
 * nobody sets it.
 */
export const sinceBoot = (): number => uptime() * 1000;

/** Milliseconds between looks. */
const LOOK_MS = 500;
/** The same while it is not known which pods are this node's: the daemon is asked for all VMs then. */
const UNKNOWN_LOOK_MS = 5_000;
/** VMs that are halted at once. */
const AT_ONCE = 16;

/** A pod that may have to stand still. */
export interface Fenced {
  readonly record: PodRecord;
  /** @returns false when it has no VM that could stand still */
  freeze(): Promise<boolean>;
  thaw(): Promise<void>;
}

/** What a fence is made of. */
export interface FenceParts {
  /** Where the time of the last contact is kept, for the next process. */
  directory: string;
  /** Milliseconds of silence after which a pod that tolerates none stands still. */
  afterMs: number;
  pods: () => readonly Fenced[];
  vmsan: Vmsan;
  log: Log;
}

/** Watches for how long the API server has not been reached. */
export class Fence {
  private readonly parts: FenceParts;
  private readonly file: string;
  /** When the last request that was answered had been sent, by {@link sinceBoot}. */
  private heard = sinceBoot();
  private timer: NodeJS.Timeout | undefined;
  private readonly standing = new Set<Fenced>();
  private looking = false;
  /** What is remembered of pods of which the API server has told this process nothing yet. */
  private unknown: Map<string, PodRecord> | undefined;
  private unknownAt = -Infinity;

  constructor(parts: FenceParts) {
    this.parts = parts;
    this.file = join(parts.directory, "last-contact");
  }

  /** Begin. What a process before this one has heard last counts. */
  async start(records: () => Map<string, PodRecord>): Promise<void> {
    const before = await this.lastContact();
    // Of another boot of the machine: none of its VMs runs any more.
    if (before !== undefined && before <= sinceBoot()) {
      this.heard = before;
      this.unknown = records();
      await this.look();
    }
    this.timer = setInterval(() => this.lookAgain(), LOOK_MS);
    this.timer.unref();
  }

  private async lastContact(): Promise<number | undefined> {
    try {
      const at = Number(await readFile(this.file, "utf8"));
      return Number.isFinite(at) && at > 0 ? at : undefined;
    } catch {
      // None yet: this host has never been a node.
      return undefined;
    }
  }

  private silenceMs(): number {
    return sinceBoot() - this.heard;
  }

  private isDue({ toleratesSeconds }: PodRecord, silenceMs = this.silenceMs()): boolean {
    if (toleratesSeconds === undefined) return false;
    return silenceMs > this.parts.afterMs + toleratesSeconds * 1000;
  }

  /** The API server has answered a request that was sent then ({@link sinceBoot}). */
  async contact(sentAt: number): Promise<void> {
    this.heard = Math.max(this.heard, sentAt);
    await writeFileAtomic(this.file, String(Math.round(sentAt)));
  }

  /** Whether any pods stand still, or may: their VMs need word from the API server. */
  get holds(): boolean {
    return this.standing.size > 0;
  }

  /** Let those go on that are still this node's: called when it has been told which are. */
  async wanted(): Promise<void> {
    this.unknown = undefined;
    const again = [...this.standing].filter(({ record }) => !this.isDue(record));
    const slots = new Slots(AT_ONCE);
    await Promise.all(
      again.map(async (pod) => {
        this.standing.delete(pod);
        await slots
          .run(async () => await pod.thaw())
          .catch((error: unknown) => this.complain(pod.record, error));
      }),
    );
    if (again.length > 0) this.parts.log.info(`${again.length} pods go on`);
  }

  private complain({ namespace, name }: PodRecord, error: unknown): void {
    this.parts.log.error(`pod ${namespace}/${name}: cannot halt it or let it go on`, error);
  }

  private lookAgain(): void {
    if (this.looking) return;
    this.looking = true;
    this.look()
      .catch((error: unknown) => this.parts.log.error("cannot look after silent VMs", error))
      .finally(() => (this.looking = false));
  }

  private async look(): Promise<void> {
    const silence = this.silenceMs();
    const due = this.parts
      .pods()
      .filter((pod) => !this.standing.has(pod) && this.isDue(pod.record, silence));
    const slots = new Slots(AT_ONCE);
    const halted: string[] = [];
    await Promise.all(
      due.map(async (pod) => {
        try {
          if (!(await slots.run(async () => await pod.freeze()))) return;
          this.standing.add(pod);
          halted.push(`${pod.record.namespace}/${pod.record.name}`);
        } catch (error) {
          this.complain(pod.record, error);
        }
      }),
    );
    if (halted.length > 0) {
      const seconds = Math.round(this.silenceMs() / 1000);
      this.parts.log.info(`silent for ${seconds} s: VMs halted before they are replaced`, {
        pods: halted,
      });
    }
    if (this.unknown !== undefined) await this.haltUnknown(this.unknown);
  }

  /** Halt VMs whose pods this process does not know yet. They go on when they are adopted. */
  private async haltUnknown(records: Map<string, PodRecord>): Promise<void> {
    if (this.silenceMs() <= this.parts.afterMs) return;
    if (performance.now() - this.unknownAt < UNKNOWN_LOOK_MS) return;
    this.unknownAt = performance.now();
    for (const vm of await this.parts.vmsan.vms()) {
      const uid = vm.view.labels[POD_LABEL];
      if (uid === undefined || vm.view.status !== "running") continue;
      const record = records.get(uid);
      if (record !== undefined && !this.isDue(record)) continue;
      this.parts.log.info(`${vm.id} halted: its pod may have been replaced`, { uid });
      await vm.pause();
    }
  }

  /** Stop watching. */
  close(): void {
    clearInterval(this.timer);
  }
}
