/** One container while the gateway runs: its record, its VM, its main process and how that ends, who waits for it. */
import type { Writable } from "node:stream";
import type { Vm } from "../../../../client/vm.ts";
import type { Vmsan } from "../../../../client/vmsan.ts";
import type { VmView } from "../../../../model/api.ts";
import type { ContainerRecord, HostConfig } from "../../../../schema/docker.ts";
import type { Log } from "../../../../util/log.ts";
import type { GatewayDriver } from "../../../native/bodies.ts";
import { DockerError, asDockerError, startFailure } from "../../errors.ts";
import type { Events } from "../../events.ts";
import { endOthers } from "../../../../containers/main.ts";
import { ContainerLog } from "../../../../containers/logs/container-log.ts";
import { logLimitsOf } from "../../logs/limits.ts";
import { argvOf } from "../request/config.ts";
import { Health } from "./health.ts";
import { VmKeeper } from "./keeper.ts";
import { startMain } from "./main-process.ts";
import { restartDelay } from "./restart.ts";
import { Run } from "../../../../containers/run.ts";
import type { RunEnd, Sink } from "../../../../containers/run.ts";
import type { ContainerStore } from "../store.ts";
import { EngineSockets } from "./sockets.ts";
import type { LeadToEngine } from "./sockets.ts";
import { Waiters } from "./waiters.ts";

/** A date that has not come. */
export const NEVER = "0001-01-01T00:00:00Z";

/** What containers share. */
export interface ContainerContext {
  vmsan: Vmsan;
  store: ContainerStore;
  events: Events;
  log: Log;
  driver: GatewayDriver;
  /** It has been removed. */
  forget(container: Life): void;
  /** Its VM is to run: others that run for their files alone let go of its volumes. */
  claim(container: Life): Promise<void>;
  lead: LeadToEngine;
}

/** A container's life; what may be done to it besides is its heir's (container.ts). */
export class Life {
  readonly record: ContainerRecord;
  /** Whoever is attached, also before it is started. */
  readonly sinks = new Set<Sink>();
  readonly log: ContainerLog | undefined;
  readonly health: Health;
  ttySize = { rows: 24, cols: 80 };
  protected readonly context: ContainerContext;
  protected run: Run | undefined;
  protected readonly keeper: VmKeeper;
  protected readonly sockets: EngineSockets;
  protected readonly waiters = new Waiters();
  private chain: Promise<unknown> = Promise.resolve();
  protected restartTimer: NodeJS.Timeout | undefined;
  private failures = 0;
  /** Whether its VM is about to run. */
  private claiming = false;
  protected gone = false;
  /** How many have stopped it to start it again, and are not done yet. */
  protected returns = 0;
  /** What is done once its main process has ended. */
  protected ending: Promise<void> = Promise.resolve();

  constructor(record: ContainerRecord, context: ContainerContext) {
    this.record = record;
    this.context = context;
    const limits = logLimitsOf(record.hostConfig);
    const dir = context.store.logDir(record.id);
    this.log =
      limits === undefined
        ? undefined
        : new ContainerLog(dir, limits, (error) => this.complain(error));
    this.health = new Health(this);
    this.keeper = new VmKeeper(record, context.vmsan, context.driver);
    this.sockets = new EngineSockets(record, context.lead);
    const size = (record.hostConfig as HostConfig).ConsoleSize;
    if (size?.[0] && size[1]) this.ttySize = { rows: size[0], cols: size[1] };
  }

  get id(): string {
    return this.record.id;
  }

  /** Whether its main process runs, or is held. */
  get active(): boolean {
    const { status } = this.record.state;
    return status === "running" || status === "paused" || status === "restarting";
  }

  /** Whether its main process is there. */
  get running(): boolean {
    const { status } = this.record.state;
    return status === "running" || status === "paused";
  }

  /** Its state as clients see it. */
  get status(): ContainerRecord["state"]["status"] {
    const { status } = this.record.state;
    return this.returns > 0 && status === "exited" ? "restarting" : status;
  }

  /** Whether it has been removed. */
  get removed(): boolean {
    return this.gone;
  }

  /** What is known of its VM while that runs. */
  get vmView(): VmView | undefined {
    return this.keeper.vm?.view;
  }

  /** Say that something has happened to it. */
  tell(action: string, attributes: Record<string, string> = {}): void {
    const { id, name, image, config } = this.record;
    const all = { ...config.Labels, image: config.Image || image.name, name, ...attributes };
    this.context.events.emit("container", action, id, all);
  }

  /** Say that it is on its networks from now on, or no longer. */
  private tellNetworks(action: "connect" | "disconnect"): void {
    const { id: container, networks } = this.record;
    for (const [name, { id }] of Object.entries(networks)) {
      const type = name === "none" ? "null" : "bridge";
      this.context.events.emit("network", action, id, { container, name, type });
    }
  }

  /** Write its record. */
  async save(): Promise<void> {
    if (!this.gone) await this.context.store.save(this.record);
  }

  /** One after the other. */
  protected async serial<T>(body: () => Promise<T>): Promise<T> {
    const before = this.chain;
    const mine = before.then(body, body);
    this.chain = mine.catch(() => undefined);
    return await mine;
  }

  /** @throws 404 when it has been removed meanwhile */
  protected check(): void {
    if (this.gone) throw new DockerError(404, `No such container: ${this.id}`);
  }

  /** Its VM, for what needs a running container. @throws 409 */
  async runningGuest(): Promise<Vm> {
    const { status } = this.record.state;
    if (status === "paused") {
      throw new DockerError(
        409,
        `Container ${this.record.name} is paused, unpause the container before exec`,
      );
    }
    if (status !== "running" || this.keeper.vm === undefined) {
      throw new DockerError(409, `container ${this.id} is not running`);
    }
    return await Promise.resolve(this.keeper.vm);
  }

  /** Work with its files, whether it runs or not: its VM is started for that when it must be. */
  async withFiles<T>(body: (vm: Vm) => Promise<T>): Promise<T> {
    const { vm } = this.keeper;
    if (this.record.state.status === "running" && vm !== undefined) return await body(vm);
    return await this.serial(async () => {
      this.check();
      try {
        return await body(await this.guest());
      } finally {
        this.linger();
      }
    });
  }

  /** Its VM, running; its record says so before anything else is done. */
  protected async guest(): Promise<Vm> {
    const before = this.record.vm;
    this.claiming = true;
    try {
      await this.context.claim(this);
      const vm = await this.keeper.ensure();
      if (before !== this.record.vm) await this.save();
      return vm;
    } finally {
      this.claiming = false;
    }
  }

  /** Stop a VM that lingers, if it has one of these volumes. Two that want the same do not wait for each other. */
  async letGo(volumes: ReadonlySet<string>): Promise<void> {
    const idle = !this.active && !this.claiming && this.keeper.vm !== undefined;
    const has = this.record.mounts.some(({ Name }) => Name !== undefined && volumes.has(Name));
    if (idle && has) await this.haltIdle();
  }

  /** Stop a VM that nobody needs any more, a little later. */
  private linger(): void {
    if (!this.active && !this.gone) this.keeper.linger(() => void this.haltIdle());
  }

  /** Stop its VM if the container does not run. */
  protected async haltIdle(): Promise<void> {
    await this.serial(async () => {
      if (!this.active && !this.gone) await this.keeper.halt();
    }).catch(this.complain);
  }

  /** Start it. @returns false when it runs already. @throws 400–500, with what clients look for */
  async start(): Promise<boolean> {
    return await this.serial(async () => {
      this.check();
      const { status } = this.record.state;
      if (status === "paused") {
        throw new DockerError(409, "cannot start a paused container, try unpause instead");
      }
      if (status === "running") return false;
      clearTimeout(this.restartTimer);
      this.failures = 0;
      this.record.restartCount = 0;
      this.record.stoppedByHand = false;
      try {
        await this.startProcess(await this.guest());
      } catch (error) {
        await this.startFailed(error);
        throw error;
      }
      return true;
    });
  }

  /** What becomes of one that could not be started. */
  private async startFailed(error: unknown): Promise<void> {
    const { state, hostConfig } = this.record;
    const { message } = asDockerError(error);
    state.error = message;
    state.exitCode = /no such file|not found in/.test(message) ? 127 : 128;
    for (const sink of this.sinks) sink.end();
    this.waiters.started(undefined);
    this.waiters.ended();
    if ((hostConfig as HostConfig).AutoRemove === true) await this.destroy();
    else {
      await this.save();
      this.linger();
    }
  }

  /** Start its main process. @throws 400 with `executable file not found` and the like */
  private async startProcess(vm: Vm): Promise<void> {
    const { record } = this;
    await this.sockets.begin(vm);
    const run = new Run(
      vm,
      (io) => startMain(vm, record, this.ttySize, io),
      this.log,
      this.sinks,
      this.complain,
    );
    try {
      await run.stream.started;
    } catch (error) {
      const { message } = startFailure(error, argvOf(record.config)[0] ?? "");
      throw new DockerError(400, `failed to create task for container: ${message}: unknown`, error);
    }
    this.tookUp(run);
    await this.began(run.stream.pid ?? 1, Date.now());
  }

  /** Its main process has been started. @param startedAt milliseconds since the epoch */
  protected async began(pid: number, startedAt: number): Promise<void> {
    const { record } = this;
    record.state = {
      status: "running",
      exitCode: 0,
      error: "",
      oomKilled: false,
      pid,
      startedAt: new Date(startedAt).toISOString(),
      finishedAt: record.state.finishedAt,
    };
    this.health.begin();
    this.tellNetworks("connect");
    this.tell("start");
    await this.save();
  }

  /** A main process runs. */
  protected tookUp(run: Run): void {
    this.run = run;
    this.record.run = run.stream.id;
    this.waiters.started(run.stream.stdin);
    void run.ended.then((end) => this.exited(run, end));
  }

  /** The main process's input, once it runs; undefined when it could not be started. */
  async input(): Promise<Writable | undefined> {
    if (this.run !== undefined) return this.run.stream.stdin;
    return await this.waiters.input();
  }

  /** The main process has ended. */
  private exited(run: Run, end: RunEnd): void {
    if (this.run !== run || this.gone) return;
    this.run = undefined;
    this.health.end();
    const { record } = this;
    const ranMs = Date.now() - Date.parse(record.state.startedAt);
    record.state = {
      ...record.state,
      status: "exited",
      exitCode: end.exitCode,
      error: end.error,
      oomKilled: end.oomKilled,
      pid: 0,
      finishedAt: new Date().toISOString(),
    };
    if (end.oomKilled) this.tell("oom");
    this.tell("die", { exitCode: String(end.exitCode) });
    this.tellNetworks("disconnect");
    this.failures = ranMs > 10_000 ? 0 : this.failures;
    const delay = restartDelay(record, this.failures);
    if (delay !== undefined) {
      record.state.status = "restarting";
      this.failures += 1;
      this.restartTimer = setTimeout(() => void this.again(run), delay);
      this.restartTimer.unref();
    }
    this.waiters.ended();
    this.log?.wake();
    if (delay !== undefined) void this.saved();
    else if (this.removesItself) {
      void this.serial(() => this.destroy()).catch(this.complain);
    } else {
      // In this order: a VM that is stopped cannot be asked any more how its main process has ended.
      this.ending = this.serial(async () => {
        await this.saved();
        if (!this.active && !this.gone) await this.keeper.halt();
      }).catch(this.complain);
    }
  }

  readonly complain = (error: unknown): void =>
    this.context.log.error(`container ${this.id}`, error);

  private async saved(): Promise<void> {
    await this.save().catch(this.complain);
  }

  /** The restart policy starts it again, in the VM that is there. */
  private async again(before: Run): Promise<void> {
    await this.serial(async () => {
      if (this.record.state.status !== "restarting" || this.gone) return;
      this.record.restartCount += 1;
      try {
        const vm = await this.guest();
        await before.forget();
        await endOthers(vm);
        await this.startProcess(vm);
      } catch (error) {
        this.record.state.status = "exited";
        await this.startFailed(error);
      }
    }).catch(this.complain);
  }

  /** Wait for its next exit. */
  async nextExit(): Promise<void> {
    await this.waiters.exit();
  }

  /** Wait until it is removed. */
  async removal(): Promise<void> {
    if (!this.gone) await this.waiters.removal();
  }

  /** Whether it is removed at its end; what is stopped to be started again is not. */
  protected get removesItself(): boolean {
    return this.returns === 0 && (this.record.hostConfig as HostConfig).AutoRemove === true;
  }

  /** Take all of it away. */
  protected async destroy(): Promise<void> {
    if (this.gone) return;
    await this.keeper.remove();
    this.gone = true;
    await this.context.store.remove(this.id);
    this.health.end();
    this.context.forget(this);
    this.tell("destroy");
    this.waiters.removed();
    for (const sink of this.sinks) sink.end();
    this.log?.wake();
  }
}
