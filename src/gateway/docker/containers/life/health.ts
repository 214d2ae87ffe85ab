/** A container's health check: a command that is run now and then in its guest. */
import type { ContainerRecord, HealthConfig } from "../../../../schema/docker.ts";
import { messageOf } from "../../../../model/errors.ts";
import type { Vm } from "../../../../client/vm.ts";

/** The container that is checked. */
export interface Checked {
  readonly record: ContainerRecord;
  readonly complain: (error: unknown) => void;
  save(): Promise<void>;
  runningGuest(): Promise<Vm>;
  tell(action: string): void;
}

const DEFAULT_MS = 30_000;
/** Between checks while a container is given time to start. */
const START_MS = 5_000;
const KEPT_RESULTS = 5;
const KEPT_OUTPUT = 4096;

type HealthState = NonNullable<ContainerRecord["health"]>;
type HealthResult = HealthState["Log"][number];

/** Nanoseconds as milliseconds; nothing and 0 are the default. */
function ms(nanoseconds: number | null | undefined, otherwise: number): number {
  return nanoseconds ? Math.max(1, nanoseconds / 1e6) : otherwise;
}

/** The command line of a check; undefined: there is none. */
function commandOf({ Test: test }: HealthConfig): string[] | undefined {
  const [kind, ...words] = test ?? [];
  if (kind === "CMD" && words.length > 0) return words;
  if (kind === "CMD-SHELL" && words.length > 0) return ["/bin/sh", "-c", words.join(" ")];
  return undefined;
}

/** Runs the check of one container while that runs. */
export class Health {
  private readonly container: Checked;
  private timer: NodeJS.Timeout | undefined;
  private stop: AbortController | undefined;

  constructor(container: Checked) {
    this.container = container;
  }

  private get config(): HealthConfig | undefined {
    return this.container.record.config.Healthcheck;
  }

  /** As it was found last; undefined: there is no check, or it has never run. */
  get state(): HealthState | undefined {
    return this.container.record.health;
  }

  /** The main process has started. */
  begin(): void {
    delete this.container.record.health;
    this.goOn();
  }

  /** The main process runs: what was found before this gateway stands until the next check. */
  goOn(): void {
    const { config } = this;
    const { record } = this.container;
    this.end();
    if (config === undefined || commandOf(config) === undefined) {
      delete record.health;
      return;
    }
    record.health ??= { Status: "starting", FailingStreak: 0, Log: [] };
    this.stop = new AbortController();
    this.next(config);
  }

  /** It has ended. */
  end(): void {
    clearTimeout(this.timer);
    this.stop?.abort();
    this.stop = undefined;
  }

  /** Whether failures do not count yet. */
  private isGivenTime(config: HealthConfig): boolean {
    const { startedAt } = this.container.record.state;
    const early = Date.now() - Date.parse(startedAt) < ms(config.StartPeriod, 0);
    return early && this.state?.Status === "starting";
  }

  private next(config: HealthConfig): void {
    const often = ms(config.Interval, DEFAULT_MS);
    const wait = this.isGivenTime(config) ? ms(config.StartInterval, START_MS) : often;
    this.timer = setTimeout(() => void this.check(config), wait);
    this.timer.unref();
  }

  private async check(config: HealthConfig): Promise<void> {
    const { stop } = this;
    const argv = commandOf(config);
    if (stop === undefined || argv === undefined) return;
    const start = new Date().toISOString();
    let result: Pick<HealthResult, "ExitCode" | "Output">;
    try {
      const timeoutMs = ms(config.Timeout, DEFAULT_MS);
      const vm = await this.container.runningGuest();
      const done = await vm.exec(argv, { timeoutMs, graceMs: 0, signal: stop.signal });
      const output = Buffer.concat([done.stdout, done.stderr]).subarray(0, KEPT_OUTPUT).toString();
      result = done.timedOut
        ? { ExitCode: -1, Output: `Health check exceeded timeout (${timeoutMs}ms)` }
        : { ExitCode: done.exitCode, Output: output };
    } catch (error) {
      if (stop.signal.aborted) return;
      result = { ExitCode: -1, Output: messageOf(error) };
    }
    if (stop.signal.aborted) return;
    // A paused container is not asked.
    if (this.container.record.state.status === "running") {
      this.take(config, { Start: start, End: new Date().toISOString(), ...result });
    }
    this.next(config);
  }

  private take(config: HealthConfig, result: HealthResult): void {
    const { state } = this;
    if (state === undefined) return;
    const before = state.Status;
    state.Log = [...state.Log, result].slice(-KEPT_RESULTS);
    if (result.ExitCode === 0) {
      state.FailingStreak = 0;
      state.Status = "healthy";
    } else {
      if (!this.isGivenTime(config)) state.FailingStreak += 1;
      if (state.FailingStreak >= (config.Retries || 3)) state.Status = "unhealthy";
    }
    if (state.Status === before) return;
    this.container.tell(`health_status: ${state.Status}`);
    // The next gateway begins with it.
    void this.container.save().catch(this.container.complain);
  }
}
