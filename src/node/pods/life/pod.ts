/** One pod of this node: what becomes of it from its binding to its end, and what is told of that. */
import type { RunEnd } from "../../../containers/run.ts";
import { isLost } from "../../../containers/main.ts";
import type { Vm } from "../../../client/vm.ts";
import type { Pod, PodContainer, PodRecord } from "../../../schema/pod.ts";
import type { PodLogOptions } from "../running.ts";
import { refusedChanges, refusedFields } from "../spec/offered.ts";
import { LiveFiles } from "../files/live.ts";
import type { LiveFilesContext } from "../files/live.ts";
import { containerOf } from "../spec/plan.ts";
import { toleratedSeconds } from "../spec/tolerations.ts";
import { Container } from "./container.ts";
import type { ContainerContext } from "./container.ts";
import { lastWords, terminationOf } from "./ending.ts";
import { removeVm } from "./guest.ts";
import { PodMemory } from "../kept/pod-memory.ts";
import type { KeptMemory } from "../kept/kept-memory.ts";
import { LiveWishes } from "./live-wishes.ts";
import { Probes } from "../probes/probes.ts";
import { Reporter } from "./reporter.ts";
import type { ReporterContext } from "./reporter.ts";
import { Backoff, restarts } from "../starting/restarts.ts";
import { Starter } from "../starting/starter.ts";
import type { StarterContext } from "../starting/starter.ts";
import { PodView } from "./view.ts";
import type { Shown } from "./view.ts";
import { Conditions, isOverruled, statusOf } from "./state.ts";
import type { PodState, Termination } from "./state.ts";
import { takenUp, toEnded, toLast, toOver, toRunning } from "./steps.ts";
import type { Reason } from "./steps.ts";
import { TakingUp } from "../starting/taking-up.ts";
import { Timers } from "./timers.ts";

/** Seconds between TERM and KILL, when a pod says nothing. */
const DEFAULT_GRACE = 30;

/** What pods share. */
export interface PodContext
  extends
    ReporterContext,
    StarterContext,
    LiveFilesContext,
    Pick<ContainerContext, "vmsan" | "store" | "volumes" | "images" | "removing"> {
  kept: KeptMemory;
}

/** A pod. */
export class NodePod implements Shown {
  readonly record: PodRecord;
  /** As the API server has it. */
  object: Pod;
  readonly spec: PodContainer;
  readonly box: Container;
  readonly state: PodState;
  /** What others see of it. */
  readonly view: PodView;
  private readonly context: PodContext;
  private readonly reporter: Reporter;
  private readonly probes: Probes;
  private readonly conditions = new Conditions();
  private readonly backoff = new Backoff();
  /** Aborted when the pod is to end: whatever is being started is given up. */
  private readonly ending = new AbortController();
  /** Its next start. */
  private readonly restart = new Timers();
  private readonly deadline = new Timers();
  private readonly files: LiveFiles;
  private readonly starter: Starter;
  private readonly wishes: LiveWishes;
  private readonly memory: PodMemory;
  private readonly takingUp: TakingUp;
  private chain: Promise<unknown> = Promise.resolve();
  private frozen = false;
  /** The API server wants it gone, and that is under way. */
  private terminating = false;
  /** Its command is to be started again once it need not stand still. */
  private owed = false;
  /** Why it fails, when that is not its command's doing. */
  private verdict: Reason | undefined;

  constructor(pod: Pod, record: PodRecord, context: PodContext) {
    this.object = pod;
    this.record = record;
    this.context = context;
    this.spec = containerOf(pod);
    this.reporter = new Reporter(context, pod);
    this.state = takenUp(record.restarts, pod.status?.startTime);
    this.box = new Container(this.spec, record, {
      vmsan: context.vmsan,
      store: context.store,
      volumes: context.volumes,
      images: context.images,
      removing: context.removing,
      complain: this.complain,
      onEnd: (end) => this.ended(end),
      onHookFailed: (message) => this.reporter.event("Warning", "FailedPreStopHook", message),
      onStays: (message) => this.reporter.event("Warning", "FailedKillPod", message),
    });
    this.view = new PodView(this, context.store);
    this.files = new LiveFiles({
      context,
      pod: () => this.object,
      guest: () => (this.over || this.frozen || !this.box.run ? undefined : this.box.vm),
      record,
      save: () => context.store.save(record),
      complain: this.complain,
    });
    this.starter = new Starter({
      pod: () => this.object,
      context,
      box: this.box,
      files: this.files,
      signal: this.ending.signal,
      onLaunched: () => {
        if (this.box.run !== undefined) this.started(this.probes.initially());
      },
      onHookFailed: (message) => {
        this.reporter.event("Warning", "FailedPostStartHook", message);
        this.unhealthy("FailedPostStartHook", undefined);
      },
      onTrouble: (why) => {
        this.state.waiting = why;
        this.reporter.event("Warning", "Failed", why.message);
        this.tell();
      },
      onLate: (message) => this.reporter.event("Warning", "SlowStart", message),
      onHopeless: async (why) => await this.refuse(why),
    });
    this.memory = new PodMemory({
      kept: context.kept,
      vmsan: context.vmsan,
      pod: () => this.object,
      event: (type, reason, message) => this.reporter.event(type, reason, message),
    });
    this.takingUp = new TakingUp({
      memory: this.memory,
      adopt: async (vm) => await this.adopt(vm),
      onResumed: async () => await this.resumed(),
      onLost: (error) => {
        this.state.phase = "Running";
        this.ended({ exitCode: 137, oomKilled: false, error });
      },
      onTrouble: (message) => this.reporter.event("Warning", "Failed", message),
      signal: this.ending.signal,
    });
    this.wishes = new LiveWishes({
      vm: () => (this.over || this.box.run === undefined ? undefined : this.box.vm),
      atEnd: (remove) => this.timeIsOver(remove),
      onRefused: (message) => this.reporter.event("Warning", "NotChanged", message),
    });
    this.probes = new Probes(this.spec, {
      onChange: (now) => {
        Object.assign(this.state, now);
        this.tell();
      },
      onUnhealthy: (message) => this.reporter.event("Warning", "Unhealthy", message),
      onDead: (message, grace) => this.unhealthy(message, grace),
    });
  }

  get uid(): string {
    return this.object.metadata.uid;
  }

  /** Whether it has ended for good. */
  get over(): boolean {
    return this.state.phase === "Succeeded" || this.state.phase === "Failed";
  }

  /** Seconds between TERM and KILL. */
  private get grace(): number {
    return this.object.spec.terminationGracePeriodSeconds ?? DEFAULT_GRACE;
  }

  /** Take it up: a new one, or one that this node has run before. @param vm the one with its label */
  begin(vm: Vm | undefined): void {
    this.setDeadline();
    this.wishes.take(this.object);
    if (this.object.metadata.deletionTimestamp) {
      this.serial(async () => {
        if (vm !== undefined) await this.adopt(vm);
      });
      this.end();
      return;
    }
    this.serial(async () => {
      const phase = this.object.status?.phase;
      if (phase === "Succeeded" || phase === "Failed") {
        this.state.phase = phase;
        if (vm !== undefined) await removeVm(this.context.vmsan, vm.id);
        return;
      }
      const refused = this.refusal(refusedFields(this.object));
      // One that has run here was changed since (`kubectl debug`): it goes on, as it did then.
      const hasRun = vm !== undefined || phase === "Running";
      if (refused !== undefined && !hasRun) await this.refuse(refused);
      else if (!(await this.takingUp.run(vm))) await this.starter.start();
    });
  }

  /** The API server has it otherwise now. */
  update(pod: Pod): void {
    const before = this.object;
    this.object = pod;
    this.wishes.take(pod);
    if (!pod.metadata.deletionTimestamp) this.changed(before);
    else if (!this.terminating) this.end();
    else if (before.metadata.deletionGracePeriodSeconds !== pod.metadata.deletionGracePeriodSeconds)
      this.box.hurry();
  }

  /**
   * Something of it may have been changed. What is not offered of that (`kubectl debug`, a resize) is told: it goes on
   * without.
   */
  private changed(before: Pod): void {
    const { object, record } = this;
    this.files.changed(before);
    if (before.spec.activeDeadlineSeconds !== object.spec.activeDeadlineSeconds) this.setDeadline();
    const tolerates = toleratedSeconds(object);
    if (record.toleratesSeconds !== tolerates) {
      record.toleratesSeconds = tolerates;
      // Without a VM there is nothing that a later process would have stand still.
      if (record.vm !== undefined) {
        try {
          this.context.store.save(record);
        } catch (error) {
          this.complain(error);
        }
      }
    }
    if (before.metadata.generation !== object.metadata.generation) {
      // Somebody may wait until this node has seen it.
      this.serial(async () => {
        await Promise.resolve();
        if (!this.over) this.tell();
      });
    }
    if (this.state.ready && isOverruled(object.status)) this.reporter.again(this.status());
    const refused = this.refusal(refusedChanges(before, object));
    if (refused !== undefined) this.reporter.event("Warning", refused.reason, refused.message);
  }

  /** What is said of fields that are not offered; undefined: there are none. */
  private refusal(fields: readonly string[]): Reason | undefined {
    if (fields.length === 0) return undefined;
    return { reason: "FieldNotOffered", message: `not offered on this node: ${fields.join(", ")}` };
  }

  /** It is gone from the API server, so nothing of it may be here. */
  gone(): void {
    this.ending.abort();
    this.quiet();
    this.wishes.close();
    this.reporter.end();
    this.box.hurry();
    this.serial(async () => {
      await this.box.remove();
      await this.context.store.remove(this.uid);
    });
  }

  /** Have its VM stand still. @returns false when there is none that could */
  async freeze(): Promise<boolean> {
    const { vm } = this.box;
    if (this.over || vm === undefined) return false;
    this.frozen = true;
    this.probes.end();
    await vm.pause().catch((error: unknown) => {
      if (!isLost(error)) throw error;
    });
    return true;
  }

  /** Let its VM go on, if it is still wanted. */
  async thaw(): Promise<void> {
    const { vm, run } = this.box;
    if (!this.frozen || vm === undefined || this.ending.signal.aborted) return;
    this.frozen = false;
    await vm.resume();
    this.files.look();
    if (run !== undefined) this.probes.begin(vm, Infinity);
    else if (this.owed) this.serial(async () => await this.again());
  }

  /** This process ends: all of it goes on, and the next one takes it up. */
  async release(): Promise<void> {
    this.reporter.end();
    this.wishes.close();
    this.quiet();
    await this.box.release();
  }

  private readonly complain = (error: unknown): void =>
    this.context.log.error(`pod ${this.record.namespace}/${this.record.name}`, error);

  /** One after the other; what cannot be helped is complained of. */
  private serial(task: () => Promise<void>): void {
    this.chain = this.chain.then(task).catch(this.complain);
  }

  /** Its status as the API server is told it. */
  status(): object {
    return statusOf(this.object, this.state, this.conditions, this.context.host);
  }

  private tell(): void {
    this.reporter.status(this.status());
  }

  /** No timer and no probe any more. */
  private quiet(): void {
    this.probes.end();
    this.restart.clear();
    this.files.end();
    this.deadline.clear();
  }

  private setDeadline(): void {
    const limit = this.object.spec.activeDeadlineSeconds;
    this.deadline.clear();
    if (!limit || this.over) return;
    const left = Date.parse(this.state.startTime) + limit * 1000 - Date.now();
    this.deadline.after(Math.max(0, left), () =>
      this.cutShort("Failed", {
        reason: "DeadlineExceeded",
        message: "Pod was active on the node longer than the specified deadline",
      }),
    );
  }

  /** The time is over that its annotation gives it. @param remove its object goes too */
  private timeIsOver(remove: boolean): void {
    if (this.terminating) return;
    if (remove) this.reporter.askForRemoval();
    else {
      const message = "The time is over that the pod was given";
      this.cutShort("Succeeded", { reason: "Ended", message });
    }
  }

  /** It has had its time: its command is ended, and with that the pod. */
  private cutShort(phase: "Succeeded" | "Failed", verdict: Reason): void {
    if (this.over || this.ending.signal.aborted) return;
    this.verdict = verdict;
    this.ending.abort();
    this.serial(async () => {
      await this.stop(this.grace);
      await this.finish(phase);
    });
  }

  /** It cannot be had, and no other attempt goes better. */
  private async refuse(why: Reason): Promise<void> {
    this.verdict = why;
    this.state.waiting = why;
    this.reporter.event("Warning", why.reason, why.message);
    await this.finish("Failed");
  }

  /** Its command runs. */
  private started(now: { started: boolean; ready: boolean }): void {
    const { vm, run } = this.box;
    if (vm === undefined || run === undefined) return;
    const { state } = this;
    const since = toRunning(state, vm, run.stream.id, this.record.startedAt);
    Object.assign(state, now);
    this.tell();
    this.wishes.take(this.object);
    this.probes.begin(vm, Date.now() - Date.parse(since));
    if (state.restarts === 0 && this.object.status?.phase !== "Running") {
      this.reporter.event("Normal", "Started", `Started container ${this.spec.name} in ${vm.id}`);
    }
  }

  /** It goes on with an earlier pod's memory: files of that one are old, its tokens are not valid any more. */
  private async resumed(): Promise<void> {
    const { running } = this.state;
    if (running !== undefined) this.record.startedAt = running.startedAt;
    try {
      this.context.store.save(this.record);
    } catch (error) {
      this.complain(error);
    }
    await this.files.rewrite();
  }

  /** Take up a VM that is there. @returns false when nothing was ever started in it */
  private async adopt(vm: Vm): Promise<boolean> {
    const known = this.object.status?.containerStatuses?.[0];
    this.state.restarts = this.record.restarts;
    if (!(await this.box.adopt(vm, this.object.status?.phase === "Running"))) return false;
    this.state.phase = "Running";
    if (this.box.run === undefined) return true;
    this.started(
      this.probes.initially({ started: known?.started === true, ready: known?.ready === true }),
    );
    this.files.found();
    return true;
  }

  private unhealthy(message: string, grace: number | undefined): void {
    this.reporter.event("Normal", "Killing", `${message}; the container is ended`);
    this.probes.end();
    void this.stop(grace ?? this.grace);
  }

  /** Its command has ended, or could not be started, or its VM is gone. */
  private ended(end: RunEnd): void {
    this.probes.end();
    const { state } = this;
    const ranMs = Date.now() - Date.parse(this.record.startedAt ?? new Date().toISOString());
    const terminated = terminationOf(end, state, this.record.startedAt);
    toEnded(state, terminated);
    if (this.ending.signal.aborted) return;
    this.serial(async () => {
      if (this.ending.signal.aborted) return;
      await this.readMessage(terminated);
      if (restarts(this.object.spec.restartPolicy, end.exitCode)) this.restartLater(ranMs);
      else await this.finish(end.exitCode === 0 ? "Succeeded" : "Failed");
    });
  }

  /** What it has left to be read of its end. */
  private async readMessage(terminated: Termination): Promise<void> {
    const { vm } = this.box;
    if (vm === undefined || terminated.message !== undefined) return;
    const logs = (options: PodLogOptions): AsyncIterable<Uint8Array> => this.view.logs(options);
    const text = await lastWords(vm, this.spec, terminated.exitCode, logs);
    if (text !== undefined) terminated.message = text;
  }

  private restartLater(ranMs: number): void {
    const { state } = this;
    const delay = this.backoff.next(ranMs);
    if (delay === 0) {
      // Its VM may have to boot first: until then nothing of it runs.
      this.tell();
      this.serial(async () => await this.again());
      return;
    }
    toLast(state);
    const message = `back-off ${delay / 1000}s restarting failed container ${this.spec.name}`;
    state.waiting = { reason: "CrashLoopBackOff", message };
    this.tell();
    this.reporter.event("Warning", "BackOff", message);
    this.restart.after(delay, () => this.serial(async () => await this.again()));
  }

  /** Start its command again. */
  private async again(): Promise<void> {
    const { state, record, context } = this;
    if (this.ending.signal.aborted) return;
    this.owed = this.frozen;
    if (this.frozen) return;
    toLast(state);
    await context.store.forgetRun(this.uid, record.restarts - 1);
    record.restarts += 1;
    state.restarts = record.restarts;
    await this.starter.again();
  }

  /** It is to be removed: its command has its time of grace, then nothing of it is left. */
  private end(): void {
    this.terminating = true;
    this.ending.abort();
    this.serial(async () => {
      const { deletionGracePeriodSeconds: grace } = this.object.metadata;
      // One that stands still has been replaced elsewhere: it runs no instruction any more.
      if (!this.frozen) await this.leave(grace ?? DEFAULT_GRACE);
      const well = this.state.terminated?.exitCode === 0 || this.verdict?.reason === "Suspended";
      await this.finish(well ? "Succeeded" : "Failed");
      await this.reporter.flush();
      await this.reporter.remove();
    });
  }

  /** End its command, or have it sleep where its memory is to be kept. */
  private async leave(graceSeconds: number): Promise<void> {
    const { box } = this;
    if (!(await this.memory.keep(box.run && box.vm, graceSeconds))) {
      await this.stop(graceSeconds);
      return;
    }
    this.verdict = { reason: "Suspended", message: "its memory is kept on this host" };
    await box.leave();
  }

  /** End its command, as far as that can be done: what follows ends it with its VM. */
  private async stop(graceSeconds: number): Promise<void> {
    await this.box.stop(graceSeconds).catch(this.complain);
  }

  /** It has ended for good: its VM goes, its log stays until its object goes. */
  private async finish(phase: "Succeeded" | "Failed"): Promise<void> {
    this.quiet();
    const { state } = this;
    const before = state.phase;
    if (!this.over) {
      toOver(state, phase, this.verdict);
      // Who has never run needs no last word when it is removed.
      if (before !== "Pending" || !this.terminating) this.tell();
    }
    this.frozen = false;
    await this.box.remove();
    if (!this.terminating) this.context.store.save(this.record);
  }
}
