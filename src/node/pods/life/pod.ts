/** One pod of this node: what becomes of it from its binding to its end, and what is told of that. */
import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import type { RunEnd } from "../../../containers/run.ts";
import { isLost } from "../../../containers/main.ts";
import type { Vm } from "../../../client/vm.ts";
import type { Pod, PodContainer, PodRecord } from "../../../schema/pod.ts";
import type { Slots } from "../../../util/flow/slots.ts";
import type { PodLogOptions } from "../running.ts";
import { startFailure } from "../spec/failure.ts";
import { refusedFields } from "../spec/offered.ts";
import { containerOf, planPod } from "../spec/plan.ts";
import type { PodHost, PodPlan } from "../spec/plan.ts";
import { LiveWishes } from "./live-wishes.ts";
import { toleratedSeconds } from "../spec/tolerations.ts";
import { Container } from "./container.ts";
import type { ContainerContext } from "./container.ts";
import { lastWords, terminationOf } from "./ending.ts";
import { removeVm } from "./guest.ts";
import { Probes } from "./probes.ts";
import { Reporter } from "./reporter.ts";
import type { ReporterContext } from "./reporter.ts";
import { Backoff, restarts } from "./restarts.ts";
import { PodView } from "./view.ts";
import type { Shown } from "./view.ts";
import { Conditions, isOverruled, seconds, statusOf } from "./state.ts";
import type { PodState, Termination } from "./state.ts";
import { Timers } from "./timers.ts";

/** Seconds between TERM and KILL, when a pod says nothing. */
const DEFAULT_GRACE = 30;
/** Pauses between attempts to start, in milliseconds. */
const RETRY_MS = 2_000;
const LONGEST_RETRY_MS = 20_000;
const LONGEST_PULL_RETRY_MS = 300_000;
/** Longest until the files of a pod that was found running are written anew, in milliseconds. */
const REFURNISH_MS = 600_000;

/** What pods share. */
export interface PodContext
  extends ReporterContext, Pick<ContainerContext, "vmsan" | "store" | "volumes"> {
  host: PodHost;
  /** VMs that are being started at once. */
  starting: Slots;
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
  private readonly timers = new Timers();
  private readonly wishes: LiveWishes;
  private readonly deadline = new Timers();
  private chain: Promise<unknown> = Promise.resolve();
  private frozen = false;
  /** The API server wants it gone, and that is under way. */
  private terminating = false;
  /** Its command is to be started again once it need not stand still. */
  private owed = false;
  /** Why it fails, when that is not its command's doing. */
  private verdict: { reason: string; message: string } | undefined;

  constructor(pod: Pod, record: PodRecord, context: PodContext) {
    this.object = pod;
    this.record = record;
    this.context = context;
    this.spec = containerOf(pod);
    this.reporter = new Reporter(context, pod);
    this.state = {
      phase: "Pending",
      startTime: pod.status?.startTime ?? seconds(),
      restarts: record.restarts,
      started: false,
      ready: false,
      imageID: "",
    };
    this.box = new Container(this.spec, record, {
      vmsan: context.vmsan,
      store: context.store,
      volumes: context.volumes,
      complain: this.complain,
      onEnd: (end) => this.ended(end),
    });
    this.view = new PodView(this, context.store);
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
      const refused = refusedFields(this.object);
      if (refused.length > 0) {
        this.refuse("FieldNotOffered", `not offered on this node: ${refused.join(", ")}`);
        await this.finish("Failed");
      } else if (vm === undefined || !(await this.adopt(vm))) await this.start();
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
    if (before.spec.activeDeadlineSeconds !== object.spec.activeDeadlineSeconds) this.setDeadline();
    const tolerates = toleratedSeconds(object);
    if (record.toleratesSeconds !== tolerates) {
      record.toleratesSeconds = tolerates;
      // Without a VM there is nothing that a later process would have stand still.
      if (record.vm !== undefined) void this.context.store.save(record).catch(this.complain);
    }
    if (before.metadata.generation !== object.metadata.generation) {
      // Somebody may wait until this node has seen it.
      this.serial(async () => {
        await Promise.resolve();
        if (!this.over) this.tell();
      });
    }
    if (this.state.ready && isOverruled(object.status)) this.reporter.again(this.status());
    const refused = [...refusedFields(this.object)];
    if (!isDeepStrictEqual(containerOf(before).resources, containerOf(object).resources))
      refused.push("spec.containers[0].resources of a pod that is bound");
    if (refused.length === 0) return;
    this.reporter.event(
      "Warning",
      "FieldNotOffered",
      `not offered on this node: ${refused.join(", ")}`,
    );
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
    this.timers.clear();
    this.deadline.clear();
  }

  private setDeadline(): void {
    const limit = this.object.spec.activeDeadlineSeconds;
    this.deadline.clear();
    if (!limit || this.over) return;
    this.deadline.after(
      Math.max(0, Date.parse(this.state.startTime) + limit * 1000 - Date.now()),
      () => {
        if (this.over || this.ending.signal.aborted) return;
        this.verdict = {
          reason: "DeadlineExceeded",
          message: "Pod was active on the node longer than the specified deadline",
        };
        this.ending.abort();
        this.serial(async () => {
          await this.box.stop(this.object.spec.terminationGracePeriodSeconds ?? DEFAULT_GRACE);
          await this.finish("Failed");
        });
      },
    );
  }

  /** The time is over that its annotation gives it. @param remove its object goes too */
  private timeIsOver(remove: boolean): void {
    if (this.terminating) return;
    if (remove) this.reporter.askForRemoval();
    else if (!this.over && !this.ending.signal.aborted) {
      this.verdict = { reason: "Ended", message: "The time is over that the pod was given" };
      this.ending.abort();
      this.serial(async () => {
        await this.box.stop(this.object.spec.terminationGracePeriodSeconds ?? DEFAULT_GRACE);
        await this.finish("Succeeded");
      });
    }
  }

  private refuse(reason: string, message: string): void {
    this.verdict = { reason, message };
    this.state.waiting = this.verdict;
    this.reporter.event("Warning", reason, message);
  }

  /** Make its VM and start its command, as often as it takes. */
  private async start(): Promise<void> {
    const { signal } = this.ending;
    for (let attempt = 0; !signal.aborted; attempt += 1) {
      try {
        await this.context.starting.run(async () => {
          const plan = await planPod(this.object, this.context.host, this.context.api);
          await this.box.make(this.object, plan, signal);
          await this.launch(plan);
        }, signal);
        return;
      } catch (error) {
        if (signal.aborted) return;
        if (!(await this.mayMend(error))) return;
      }
      const pulling = this.state.waiting?.reason === "ErrImagePull";
      const longest = pulling ? LONGEST_PULL_RETRY_MS : LONGEST_RETRY_MS;
      const ms = Math.min(longest, RETRY_MS * 2 ** Math.min(attempt, 10));
      // AbortError: it is not wanted any more.
      await sleep(ms, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  /** Say why it could not be started. @returns whether another attempt may go better */
  private async mayMend(error: unknown): Promise<boolean> {
    const { reason, message, lasting } = startFailure(error);
    if (lasting) {
      this.refuse(reason, message);
      await this.finish("Failed");
      return false;
    }
    this.state.waiting = { reason, message };
    this.reporter.event("Warning", "Failed", message);
    this.tell();
    return true;
  }

  private async launch(plan: PodPlan): Promise<void> {
    this.renewAt(plan.renewAt);
    await this.box.launch(plan);
    if (this.box.run !== undefined) this.started(this.probes.initially());
  }

  /** Its command runs. */
  private started(now: { started: boolean; ready: boolean }): void {
    const { vm, run } = this.box;
    if (vm === undefined || run === undefined) return;
    const { state } = this;
    delete state.waiting;
    delete state.terminated;
    state.phase = "Running";
    state.running = { startedAt: seconds(new Date(this.record.startedAt ?? Date.now())) };
    state.containerID = `vmsan://${vm.id}.${run.stream.id}`;
    const { image } = vm.view;
    state.imageID = image === undefined ? "" : `${image.name}@${image.digest}`;
    Object.assign(state, now);
    this.tell();
    this.wishes.take(this.object);
    this.probes.begin(vm, Date.now() - Date.parse(state.running.startedAt));
    if (state.restarts === 0 && this.object.status?.phase !== "Running") {
      this.reporter.event("Normal", "Started", `Started container ${this.spec.name} in ${vm.id}`);
    }
  }

  /** Take up a VM that is there. @returns false when nothing was ever started in it */
  private async adopt(vm: Vm): Promise<boolean> {
    const known = this.object.status?.containerStatuses?.[0];
    this.state.phase = "Running";
    this.state.restarts = this.record.restarts;
    if (!(await this.box.adopt(vm, this.object.status?.phase === "Running"))) {
      this.state.phase = "Pending";
      return false;
    }
    if (this.box.run === undefined) return true;
    this.started(
      this.probes.initially({ started: known?.started === true, ready: known?.ready === true }),
    );
    const renews = this.object.spec.volumes?.some(({ projected }) =>
      projected?.sources?.some((source) => source.serviceAccountToken),
    );
    if (renews === true) this.renewAt(Date.now() + Math.random() * REFURNISH_MS);
    return true;
  }

  /** Write its files anew before a token in them ends. */
  private renewAt(at: number | undefined): void {
    if (at === undefined) return;
    this.timers.after(Math.max(10_000, at - Date.now()), () => {
      if (this.over || this.ending.signal.aborted) return;
      planPod(this.object, this.context.host, this.context.api)
        .then(async (plan) => {
          if (!this.frozen) await this.box.refurnish(plan);
          this.renewAt(plan.renewAt);
        })
        .catch((error: unknown) => {
          this.complain(error);
          this.renewAt(Date.now() + 60_000);
        });
    });
  }

  private unhealthy(message: string, grace: number | undefined): void {
    this.reporter.event("Normal", "Killing", `${message}; the container is ended`);
    this.probes.end();
    const own = this.object.spec.terminationGracePeriodSeconds ?? DEFAULT_GRACE;
    void this.box.stop(grace ?? own).catch(this.complain);
  }

  /** Its command has ended, or could not be started, or its VM is gone. */
  private ended(end: RunEnd): void {
    this.probes.end();
    const { state } = this;
    const ranMs = Date.now() - Date.parse(this.record.startedAt ?? new Date().toISOString());
    const terminated = terminationOf(end, state, this.record.startedAt);
    delete state.running;
    delete state.waiting;
    state.terminated = terminated;
    state.ready = false;
    state.started = false;
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
    if (state.terminated !== undefined) state.last = state.terminated;
    delete state.terminated;
    const message = `back-off ${delay / 1000}s restarting failed container ${this.spec.name}`;
    state.waiting = { reason: "CrashLoopBackOff", message };
    this.tell();
    this.reporter.event("Warning", "BackOff", message);
    this.timers.after(delay, () => this.serial(async () => await this.again()));
  }

  /** Start its command again: in its VM if that is there, else in a new one. */
  private async again(): Promise<void> {
    const { state, record, context } = this;
    if (this.ending.signal.aborted) return;
    this.owed = this.frozen;
    if (this.frozen) return;
    if (state.terminated !== undefined) state.last = state.terminated;
    delete state.terminated;
    await context.store.forgetRun(this.uid, record.restarts - 1);
    record.restarts += 1;
    state.restarts = record.restarts;
    try {
      const plan = await planPod(this.object, context.host, context.api);
      if (await this.box.again(plan)) {
        if (this.box.run !== undefined) this.started(this.probes.initially());
        return;
      }
    } catch (error) {
      if (!(await this.mayMend(error))) return;
    }
    await this.start();
  }

  /** It is to be removed: its command has its time of grace, then nothing of it is left. */
  private end(): void {
    this.terminating = true;
    this.ending.abort();
    this.serial(async () => {
      const { deletionGracePeriodSeconds: grace } = this.object.metadata;
      // One that stands still has been replaced elsewhere: it runs no instruction any more.
      if (!this.frozen) await this.box.stop(grace ?? DEFAULT_GRACE);
      await this.finish(this.state.terminated?.exitCode === 0 ? "Succeeded" : "Failed");
      await this.reporter.flush();
      await this.reporter.remove();
    });
  }

  /** It has ended for good: its VM goes, its log stays until its object goes. */
  private async finish(phase: "Succeeded" | "Failed"): Promise<void> {
    this.quiet();
    const { state } = this;
    const before = state.phase;
    if (!this.over) {
      state.phase = phase;
      Object.assign(state, this.verdict);
      state.ready = false;
      if (state.running !== undefined) {
        delete state.running;
        state.terminated = { exitCode: 137, reason: "Error", finishedAt: seconds() };
      }
      // Who has never run needs no last word when it is removed.
      if (before !== "Pending" || !this.terminating) this.tell();
    }
    this.frozen = false;
    await this.box.remove();
    if (!this.terminating) await this.context.store.save(this.record);
  }
}
