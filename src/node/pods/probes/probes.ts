/** The probes of one container while that runs: started, ready, alive. */
import type { Vm } from "../../../client/vm.ts";
import type { PodContainer, PodProbe } from "../../../schema/pod.ts";
import { lookAt } from "./probe.ts";
import { Timers } from "../life/timers.ts";

/** What probes find out. */
export interface ProbeEvents {
  /** It has started, or is ready, or is not any more. */
  onChange(now: { started: boolean; ready: boolean }): void;
  /** A probe has failed as often as it may: the container is to be ended. @param graceSeconds of the probe's own */
  onDead(message: string, graceSeconds: number | undefined): void;
  /** A probe has failed so often that it counts. */
  onUnhealthy(message: string): void;
}

type Kind = "startup" | "readiness" | "liveness";

/** One probe's run of luck. */
interface Streak {
  successes: number;
  failures: number;
}

/** Looks at one container again and again. */
export class Probes {
  private readonly container: PodContainer;
  private readonly events: ProbeEvents;
  private readonly timers = new Timers();
  private stop: AbortController | undefined;
  private started = false;
  private ready = false;
  /** When the container was started, by performance.now(). */
  private since = 0;

  constructor(container: PodContainer, events: ProbeEvents) {
    this.container = container;
    this.events = events;
  }

  /** What holds before the first look. @param before what was known of a container that runs already */
  initially(before?: { started: boolean; ready: boolean }): { started: boolean; ready: boolean } {
    const { startupProbe, readinessProbe } = this.container;
    this.started = !startupProbe || before?.started === true;
    this.ready = this.started && (!readinessProbe || before?.ready === true);
    return { started: this.started, ready: this.ready };
  }

  /** The container runs, and has for so many milliseconds. */
  begin(vm: Vm, ranMs: number): void {
    this.end();
    this.stop = new AbortController();
    this.since = performance.now() - ranMs;
    const { startupProbe } = this.container;
    if (startupProbe && !this.started) this.watch(vm, "startup", startupProbe, ranMs);
    else this.watchRest(vm, ranMs);
  }

  /** The container has ended, or stands still. */
  end(): void {
    this.timers.clear();
    this.stop?.abort();
    this.stop = undefined;
  }

  private watchRest(vm: Vm, ranMs: number): void {
    const { readinessProbe, livenessProbe } = this.container;
    if (readinessProbe) this.watch(vm, "readiness", readinessProbe, ranMs);
    if (livenessProbe) this.watch(vm, "liveness", livenessProbe, ranMs);
  }

  private watch(vm: Vm, kind: Kind, probe: PodProbe, ranMs: number): void {
    const streak: Streak = { successes: 0, failures: 0 };
    const period = Math.max(1, probe.periodSeconds ?? 10) * 1000;
    const first = Math.max(0, (probe.initialDelaySeconds ?? 0) * 1000 - ranMs);
    this.later(first, async (signal) => {
      for (;;) {
        if (await this.look(vm, kind, probe, streak, signal)) return;
        await new Promise<void>((resolve) => this.later(period, async () => resolve()));
        if (signal.aborted) return;
      }
    });
  }

  private later(ms: number, task: (signal: AbortSignal) => Promise<void>): void {
    const { stop } = this;
    if (stop === undefined) return;
    this.timers.after(ms, () => {
      // Aborted: the container has ended.
      task(stop.signal).catch(() => undefined);
    });
  }

  /** One look and what follows. @returns whether it was the last one */
  private async look(
    vm: Vm,
    kind: Kind,
    probe: PodProbe,
    streak: Streak,
    signal: AbortSignal,
  ): Promise<boolean> {
    const failure = await lookAt(vm, this.container, probe, signal);
    signal.throwIfAborted();
    if (failure === undefined) {
      streak.failures = 0;
      streak.successes += 1;
      return streak.successes >= (probe.successThreshold ?? 1) && this.succeeded(vm, kind);
    }
    streak.successes = 0;
    streak.failures += 1;
    if (streak.failures < (probe.failureThreshold ?? 3)) return false;
    return this.failed(kind, probe, failure);
  }

  private succeeded(vm: Vm, kind: Kind): boolean {
    if (kind === "liveness") return false;
    if (kind === "readiness") {
      this.change({ ready: true });
      return false;
    }
    this.change({ started: true, ready: !this.container.readinessProbe });
    // As the kubelet counts: from the container's start, not from now.
    this.watchRest(vm, performance.now() - this.since);
    return true;
  }

  private failed(kind: Kind, probe: PodProbe, failure: string): boolean {
    const name = `${kind[0]?.toUpperCase() ?? ""}${kind.slice(1)}`;
    const message = `${name} probe failed: ${failure}`;
    this.events.onUnhealthy(message);
    if (kind === "readiness") {
      this.change({ ready: false });
      return false;
    }
    this.events.onDead(message, probe.terminationGracePeriodSeconds ?? undefined);
    return true;
  }

  private change(now: { started?: boolean; ready: boolean }): void {
    const started = now.started ?? this.started;
    if (started === this.started && now.ready === this.ready) return;
    this.started = started;
    this.ready = now.ready;
    this.events.onChange({ started, ready: now.ready });
  }
}
