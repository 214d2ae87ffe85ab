/**
 * Clones of templates that wait: loaded, past their agent's first answer, standing still. The next VM of their kind
 * has only to be told who it is. Off unless VMSAN_READY_CLONES says how many kinds may have one; each costs the memory of an
 * idle clone, so they go when nobody has asked for minutes and when the host's memory runs short. A clone that waits is
 * a VM whose record says that it is being created: whatever kills this process, the next one removes it.
 */
import { freemem } from "node:os";
import type { CreateRequest } from "../../model/api.ts";
import { tearDown } from "../starting/bring-up.ts";
import type { DriverChoice } from "../stages.ts";
import type { VmTable } from "../table.ts";
import { nameOf } from "./template-shelf.ts";
import type { ReadyClone, WarmPlan } from "./warm-plan.ts";

/** How long one waits for a request. */
const WAIT_MS = 5 * 60_000;
const LOOK_MS = 5000;
/** Bytes of the host's memory that must be available before one is made, and below which all go. */
const ENOUGH = 2 ** 30;
const SHORT = 2 ** 29;

/** How one is made; undefined: there is no template. */
type MakeClone = (
  request: CreateRequest,
  choice: DriverChoice,
  plan: WarmPlan,
  signal: AbortSignal,
) => Promise<Omit<ReadyClone, "end"> | undefined>;

/** What a kind of VM is known by; undefined for one that has something of its own before it is told who it is. */
function kindOf(request: CreateRequest, choice: DriverChoice): string | undefined {
  const { image, runtime, kernel, platform, init, sysctls } = request;
  const { vcpus, memMib, diskSizeBytes, diskMode, kernelArgs, policy, isolation } = request;
  const own = [request.ports, request.networks, request.mounts, request.secrets ?? []];
  if (own.some((list) => list.length > 0) || request.pull === "always") return undefined;
  const machine = [choice.driver.name, choice.accelerator, vcpus, memMib, diskSizeBytes, diskMode];
  const what = [image, runtime, platform, init, kernel, kernelArgs, sysctls, policy, isolation];
  return nameOf([machine, what]);
}

/** The same request of nobody in particular: nobody's limits, nobody's keys. */
function anybodys(request: CreateRequest): CreateRequest {
  const { name: _, user: _user, workdir: _workdir, registry: _registry, ...rest } = request;
  const { timeoutMs: _limit, onTimeout: _on, idle: _idle, bootTimeoutMs: _boot, ...any } = rest;
  return { ...any, env: [], labels: {}, project: "", ephemeral: true };
}

/** One that is being made. */
interface Making {
  done: Promise<void>;
  /** Somebody waits for it already. */
  awaited: boolean;
}

/** The clones that wait, one a kind. */
export class ReadyClones {
  private readonly table: VmTable;
  private readonly make: MakeClone;
  private readonly limit: number;
  private readonly stopping = new AbortController();
  /** By kind, the one that was made first first. */
  private readonly kept = new Map<string, ReadyClone & { since: number }>();
  private readonly making = new Map<string, Making>();
  /** Those that are being removed. */
  private readonly ending = new Set<Promise<void>>();
  private looking: NodeJS.Timeout | undefined;

  /** @param limit how many kinds may have one; default: as VMSAN_READY_CLONES says, none without it */
  constructor(table: VmTable, make: MakeClone, limit?: number) {
    this.table = table;
    this.make = make;
    const said = Number(process.env["VMSAN_READY_CLONES"]);
    this.limit = limit ?? (Number.isSafeInteger(said) && said > 0 ? said : 0);
  }

  /** The clone that waits for such a request, or is about to: the caller's from now on. */
  async take(
    request: CreateRequest,
    choice: DriverChoice,
    signal: AbortSignal,
  ): Promise<ReadyClone | undefined> {
    const kind = kindOf(request, choice);
    if (kind === undefined) return undefined;
    const making = this.making.get(kind);
    if (making !== undefined && !making.awaited && !this.kept.has(kind)) {
      // It has begun earlier than another one would.
      making.awaited = true;
      const left = new Promise<void>((resolve) => {
        signal.addEventListener("abort", () => resolve(), { once: true });
      });
      await Promise.race([making.done, left]);
      signal.throwIfAborted();
    }
    const found = this.kept.get(kind);
    this.kept.delete(kind);
    return found;
  }

  /** Have one wait for the next such request, if that is switched on and there is room. */
  next(request: CreateRequest, choice: DriverChoice, plan: WarmPlan): void {
    const kind = kindOf(request, choice);
    if (kind === undefined || this.limit === 0 || this.stopping.signal.aborted) return;
    if (this.kept.has(kind) || this.making.has(kind)) return;
    if (freemem() < ENOUGH) return;
    const making: Making = { awaited: false, done: Promise.resolve() };
    this.making.set(kind, making);
    making.done = this.makeOne(kind, request, choice, plan).finally(() => {
      this.making.delete(kind);
    });
  }

  private async makeOne(
    kind: string,
    request: CreateRequest,
    choice: DriverChoice,
    plan: WarmPlan,
  ): Promise<void> {
    const { signal } = this.stopping;
    try {
      const made = await this.make(anybodys(request), choice, plan, signal);
      if (made === undefined) return;
      let ended: Promise<void> | undefined;
      const clone = {
        ...made,
        since: Date.now(),
        end: async (): Promise<void> => await (ended ??= this.remove(made)),
      };
      this.kept.set(kind, clone);
      void made.guest.running.exited.then(() => {
        if (this.kept.get(kind) === clone) this.drop(kind);
      });
      this.looking ??= setInterval(() => this.look(), LOOK_MS).unref();
      this.look();
    } catch (error) {
      if (!signal.aborted) this.table.log.error("cannot have a clone wait", error);
    }
  }

  private async remove({ record, guest }: Omit<ReadyClone, "end">): Promise<void> {
    const { id } = record;
    this.table.report(id, await tearDown(record, this.table.stages, guest));
    await this.table.records.remove(id);
  }

  /** Remove those that nobody has asked for, all when memory is short, and the oldest of too many. */
  private look(): void {
    const isShort = freemem() < SHORT;
    const stopped = this.stopping.signal.aborted;
    for (const [kind, { since }] of this.kept) {
      const isOld = Date.now() - since > WAIT_MS;
      if (isShort || stopped || isOld || this.kept.size > this.limit) this.drop(kind);
    }
    if (this.kept.size > 0) return;
    clearInterval(this.looking);
    this.looking = undefined;
  }

  private drop(kind: string): void {
    const clone = this.kept.get(kind);
    this.kept.delete(kind);
    if (clone === undefined) return;
    const ending = clone
      .end()
      .catch((error: unknown) => {
        this.table.log.error(`${clone.record.id}: cannot remove a clone that waited`, error);
      })
      .finally(() => this.ending.delete(ending));
    this.ending.add(ending);
  }

  /** End those that wait. */
  async giveUp(): Promise<void> {
    for (const kind of this.kept.keys()) this.drop(kind);
    await Promise.all(this.ending);
  }

  /** End all, and wait until nothing of them is left. */
  async close(): Promise<void> {
    this.stopping.abort(new Error("the daemon ends"));
    await Promise.all([...this.making.values()].map(async ({ done }) => await done));
    await this.giveUp();
    clearInterval(this.looking);
  }
}
