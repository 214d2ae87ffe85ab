/** All VMs of one VMSAN_DIR: made, started, stopped, removed, and found again. */
import type { CreateRequest, VmView } from "../model/api.ts";
import { VmsanError } from "../model/errors.ts";
import type { Mount } from "../model/mount.ts";
import type { NetworkPolicy } from "../model/policy.ts";
import type { MembershipRequest } from "../model/private-network.ts";
import type { VmRecord } from "../model/vm.ts";
import { thaw } from "../snapshots/freeze.ts";
import { checkIsolation } from "../vmm/isolation.ts";
import { asPhase } from "../util/flow/phases.ts";
import { together } from "../util/flow/together.ts";
import { attachAhead, bringUp, lapsOf } from "./starting/bring-up.ts";
import type { LiveGuest } from "./starting/await-guest.ts";
import type { Entry } from "./records/entry.ts";
import { Lives, startTimeLimit } from "./lives.ts";
import { Mutex } from "../util/flow/mutex.ts";
import { attachVolumes, placeMounts, volumesOf, withKinds } from "./starting/mounts.ts";
import { makeDisks, newRecord, prepareVm, setBootFiles } from "./starting/new-vm.ts";
import { requireCard } from "./records/memberships.ts";
import { requireFreeVolumes } from "./records/volume-users.ts";
import { keepSecrets, secretRules } from "./records/secrets.ts";
import type { SecretWishes } from "./records/secrets.ts";
import { recover } from "./recovery.ts";
import { interrupted, notFound, notRunning, notStopped, startInterrupted } from "./refusals.ts";
import { isWarm, takeOver } from "./warm/warm-plan.ts";
import type { ReadyClone, WarmPlan, WarmStarts } from "./warm/warm-plan.ts";
import type { DriverChoice, Work } from "./stages.ts";
import { viewOf } from "./records/view.ts";

/** How {@link Sandboxes.make} makes a VM. */
export interface Maker {
  name: string | undefined;
  /** When it was asked for, as performance.now() tells; default now. */
  since?: number;
  /** Private networks that it shall be in. */
  networks: readonly MembershipRequest[];
  secrets: SecretWishes;
  /** Its first record, status `creating`. */
  record(id: string, dir: string): VmRecord;
  /** A clone that waits already, whose ID the VM gets. */
  ready?: ReadyClone | undefined;
  /** On return its agent answers and knows who it is. Nothing of it is left on failure. */
  bringUp(record: VmRecord, work: Work): Promise<LiveGuest>;
}

/** From what a VM may start instead of booting. */
interface HowWarm {
  /** Absent: it boots. */
  warm: WarmStarts | undefined;
  /** Absent: no template of its image will do. */
  byImage: WarmStarts | undefined;
  /** A clone that waits. */
  ready: ReadyClone | undefined;
  /** When the VM was asked for. */
  since: number;
}

/** The composer's public face; the daemon serves exactly this. */
export class Sandboxes extends Lives {
  /** Starts VMs from templates, and keeps those. */
  warm: WarmStarts | undefined;
  /** Whether a VM is being made or started. */
  get starting(): boolean {
    return [...this.entries.values()].some(({ busy }) => busy !== undefined);
  }

  /** Wakes a sleeping VM. */
  wake: (entry: Entry) => Promise<void> = async () => await Promise.resolve();

  /** Find the VMs that an earlier daemon left: adopt the living, clean up after the dead. */
  async recover(): Promise<void> {
    await recover(this);
  }

  /**
   * Make a VM and wait until its agent answers.
   * @param onId called with the VM's ID before anything else is done
   * @throws ERR_VM_NAME_TAKEN when the name is taken; whatever a stage reports
   */
  async create(wish: CreateRequest, work: Work, onId: (id: string) => void): Promise<VmView> {
    const since = performance.now();
    this.requireFreeName(wish.name);
    const request = { ...wish, mounts: await this.checkMounts(wish.mounts) };
    requireFreeVolumes(this.entries.values(), undefined, request.mounts);
    const choice = await this.stages.chooseDriver(request.driver, request.host);
    checkIsolation(choice.driver, request.isolation, request.policy.mode !== "none");
    const warm = isWarm(request, choice.accelerator) ? this.warm : undefined;
    const plain = request.mounts.every(({ kind }) => kind === "anonymous" || kind === "tmpfs");
    const byImage = plain && request.rootfs === undefined ? warm : undefined;
    const ready = await byImage?.take(request, choice, work.signal);
    try {
      return await this.createWith(request, choice, { warm, byImage, ready, since }, work, onId);
    } catch (error) {
      await ready?.end();
      throw error;
    }
  }

  /** Make a VM as it was asked for, by this driver. */
  private async createWith(
    request: CreateRequest,
    choice: DriverChoice,
    { warm, byImage, ready, since: asked }: HowWarm,
    work: Work,
    onId: (id: string) => void,
  ): Promise<VmView> {
    return await this.make(
      {
        name: request.name,
        since: asked,
        ready,
        networks: request.networks,
        secrets: { requests: request.secrets ?? [], caFile: request.registry?.caFile },
        record: (id, dir) => takeOver(newRecord(id, dir, request, choice), ready),
        bringUp: async (record, own) => {
          const lap = lapsOf(record);
          const since = performance.now();
          const flat = request.diskMode === "flat";
          const [base] = await together<[string, void, string]>(
            own.signal,
            async (signal) => await prepareVm(record, request, this.stages, { ...own, signal }),
            // A clone that waits has its network.
            async (signal) =>
              ready === undefined
                ? attachAhead(record, this.stages, { ...own, signal })
                : undefined,
            // Made, and on the disk: its start asks for it.
            async () => await this.records.token(record.id),
          );
          if (request.mounts.length > 0) record.mounts = placeMounts(base, request.mounts);
          await this.makeVolumes(record);
          const plan = { base, flat };
          const preparedMs = lap("prepare", since) - since;
          const { guest, drop } = (await byImage?.start(record, plan, own, ready)) ?? {};
          if (guest !== undefined) {
            byImage?.next(request, choice, plan);
            return guest;
          }
          const from = performance.now();
          await asPhase("disk", async () => {
            await makeDisks(record, base, flat, this.stages, own);
            await this.records.save(record);
          });
          lap("prepare", from - preparedMs);
          const booted = await this.bringUp(record, own, warm);
          await this.keepFor(warm, record, byImage && plan, drop);
          return booted;
        },
      },
      { ...work, ...(request.host && { host: request.host }) },
      onId,
    );
  }

  /**
   * Make a VM in the given way; whatever fails, nothing of it is left.
   * @param onId called with the VM's ID before anything else is done
   */
  async make(maker: Maker, work: Work, onId: (id: string) => void): Promise<VmView> {
    const { name, since = performance.now() } = maker;
    this.requireFreeName(name);
    const id = maker.ready?.record.id ?? (await this.claimId());
    const record = maker.record(id, this.records.dir(id));
    try {
      // Others may have come meanwhile; from here to the entry nothing waits.
      this.requireFreeName(name);
      requireFreeVolumes(this.entries.values(), id, record.mounts);
      requireCard(record, maker.networks);
      const networks = this.places.give(this.entries.values(), id, maker.networks);
      if (networks.length > 0) record.networks = networks;
      const rules = secretRules(maker.secrets, record);
      if (rules.length > 0) record.secrets = { rules, certificate: "", subject: "" };
    } catch (error) {
      // A clone that waits runs: its record goes after it.
      if (maker.ready === undefined) await this.records.remove(id);
      throw error;
    }
    const busy = new AbortController();
    const signal = AbortSignal.any([work.signal, busy.signal]);
    const entry: Entry = { record, mutex: new Mutex(), busy, holders: 0, watchers: new Set() };
    this.entries.set(id, entry);
    return await entry.mutex.run(async () => {
      try {
        await this.records.save(record);
        onId(id);
        await keepSecrets(this.records.dir(id), record, maker.secrets);
        this.events.vm("vm.created", record, {
          image: record.image?.name ?? record.runtime,
          snapshot: record.snapshot,
        });
        lapsOf(record)("accept", since);
        const guest = await maker.bringUp(record, { ...work, signal });
        record.timings["total"] = Math.round(performance.now() - since);
        await this.nowRuns(entry, guest);
        return viewOf(record);
      } catch (error) {
        await this.discard(entry);
        if (signal.aborted) throw interrupted(id);
        throw error;
      } finally {
        delete entry.busy;
      }
    });
  }

  /** What is to be mounted, with what is found out of it. @throws ERR_MOUNT_SOURCE, ERR_VOLUME_PART */
  private async checkMounts(mounts: readonly Mount[]): Promise<Mount[]> {
    return await withKinds(await this.stages.shares.check(mounts), this.stages.volumes);
  }

  /** Make the volumes of a new VM that are not there yet. */
  private async makeVolumes(record: VmRecord): Promise<void> {
    const { volumes } = this.stages;
    for (const { name } of volumesOf(record)) {
      if (await volumes.has(name)) continue;
      await volumes.create({ name, labels: {} });
      this.events.host("volume.created", { volume: name });
    }
  }

  /** Boot a prepared VM. */
  private async bringUp(record: VmRecord, work: Work, warm?: WarmStarts): Promise<LiveGuest> {
    await attachVolumes(record, this.stages.volumes, work.signal);
    // What a volume is may have changed since the VM was entered.
    requireFreeVolumes(this.entries.values(), record.id, record.mounts);
    const token = await this.records.token(record.id);
    const save = async (): Promise<void> => await this.records.save(record);
    const findMachine = warm && ((like: VmRecord) => warm.findMachine(like));
    return await bringUp(record, token, this.stages, work, save, findMachine);
  }

  /**
   * Have kept what the next VM can start from; whatever becomes of that, this one runs.
   * @param drop forgets what this one could not be started from
   */
  private async keepFor(
    warm: WarmStarts | undefined,
    record: VmRecord,
    plan: WarmPlan | undefined,
    drop?: () => Promise<void>,
  ): Promise<void> {
    try {
      await drop?.();
      await warm?.wanted(record, plan);
    } catch (error) {
      this.log.error(`${record.id}: nothing is kept for the next start`, error);
    }
  }

  /**
   * Start a stopped VM, wake a sleeping one.
   * @param bootTimeoutMs limit of this boot and later ones, instead of the VM's own
   * @throws ERR_VM_NOT_STOPPED
   */
  async start(ref: string, work: Work, bootTimeoutMs?: number): Promise<VmView> {
    const asleep = this.find(ref);
    if (asleep.record.status === "suspended") {
      await this.wake(asleep);
      return viewOf(asleep.record);
    }
    return await this.exclusively(ref, async (entry) => {
      const { record } = entry;
      // Its VMM may have died just now, and nobody has looked after it yet.
      if (viewOf(record).status !== record.status) await this.settleDead(entry);
      if (this.entries.get(record.id) !== entry) throw notFound(ref);
      if (record.status === "running" || record.status === "paused") {
        throw notStopped(`Cannot start ${ref}`, record, `Stop it first: vmsan stop ${ref}`);
      }
      const busy = new AbortController();
      entry.busy = busy;
      try {
        if (record.mounts !== undefined) {
          record.mounts = await this.checkMounts(record.mounts);
        }
        const choice = await this.stages.chooseDriver(record.driver, work.host);
        record.accelerator = choice.accelerator;
        record.driverReason = choice.reason;
        const signal = AbortSignal.any([work.signal, busy.signal]);
        const own: Work = { ...work, signal };
        requireFreeVolumes(this.entries.values(), record.id, record.mounts);
        if (record.networks !== undefined) {
          record.networks = this.places.renew(this.entries.values(), record);
        }
        // What this daemon makes now must be found by the next one, should it be killed.
        record.starting = true;
        record.timings = {};
        if (bootTimeoutMs !== undefined) record.bootTimeoutMs = bootTimeoutMs;
        await this.records.save(record);
        // This version's agent, not the one the VM was made with.
        setBootFiles(record.spec, await this.stages.bootFiles(record.kernelFile, own));
        const warm = isWarm(record, choice.accelerator) ? this.warm : undefined;
        await this.nowRuns(entry, await this.bringUp(record, own, warm));
        await this.keepFor(warm, record, undefined);
        return viewOf(record);
      } catch (error) {
        record.status = "stopped";
        delete record.starting;
        await this.saveIfPossible(record);
        if (busy.signal.aborted) throw startInterrupted(ref);
        throw error;
      } finally {
        delete entry.busy;
      }
    });
  }

  /** Pause a running VM's CPUs. */
  async pause(ref: string): Promise<void> {
    await this.changeRunState(ref, "running", "paused", (guest) => guest.running.pause());
  }

  /** Let a paused VM go on, wake a sleeping one. */
  async resume(ref: string): Promise<void> {
    const entry = this.find(ref);
    if (entry.record.status === "suspended") return await this.wake(entry);
    await this.changeRunState(ref, "paused", "running", async (guest) => {
      await guest.running.resume();
      if (entry.record.held !== true) return;
      await thaw(guest);
      delete entry.record.held;
    });
  }

  private async changeRunState(
    ref: string,
    from: "running" | "paused",
    to: "running" | "paused",
    change: (guest: LiveGuest) => Promise<void>,
  ): Promise<void> {
    await this.exclusively(ref, async ({ guest, record }) => {
      if (guest === undefined || record.status !== from) throw notRunning(ref, record, from);
      await change(guest);
      record.status = to;
      await this.records.save(record);
      this.events.vm(to === "paused" ? "vm.paused" : "vm.resumed", record);
    });
  }

  /** Put a new network policy in force. */
  async updatePolicy(ref: string, policy: NetworkPolicy): Promise<VmView> {
    return await this.exclusively(ref, async (entry) => {
      const { record } = entry;
      const changesCard = (policy.mode === "none") !== (record.policy.mode === "none");
      if (changesCard && entry.guest !== undefined) {
        throw new VmsanError({
          code: "ERR_VM_NOT_STOPPED",
          message: `Cannot change the network policy of ${ref} to ${policy.mode}`,
          why: "A network card can be added or taken away only while the VM is stopped.",
          fix: `Stop it first (vmsan stop ${ref}), or use deny-all.`,
        });
      }
      requireCard({ ...record, policy }, record.networks ?? []);
      if (entry.guest !== undefined) await this.stages.networks.update(record.id, policy);
      record.policy = policy;
      await this.records.save(record);
      this.events.vm("vm.policy", record, { mode: policy.mode });
      return viewOf(record);
    });
  }

  /**
   * Let a running VM's time limit count from now on; without a limit nothing changes.
   * @param limitMs another limit from now on, in milliseconds; of a VM that sleeps or is stopped it counts from when it
   *   runs again, so that nobody has to be quicker than its old one
   * @throws ERR_VM_NOT_RUNNING
   */
  async extendTimeout(ref: string, limitMs?: number): Promise<VmView> {
    return await this.exclusively(ref, async (entry) => {
      const { record } = entry;
      if (entry.guest === undefined || record.stopReason !== undefined) {
        const rests = record.status === "stopped" || record.status === "suspended";
        if (limitMs === undefined || entry.guest !== undefined || !rests)
          throw notRunning(ref, record);
        record.timeoutMs = limitMs;
        await this.records.save(record);
        return viewOf(record);
      }
      if (limitMs !== undefined) record.timeoutMs = limitMs;
      startTimeLimit(record, new Date());
      await this.records.save(record);
      this.armTimeout(entry);
      // Commands put the end off all the time: that is no news.
      if (limitMs !== undefined)
        this.events.vm("vm.updated", record, { timeoutMs: limitMs, timeoutAt: record.timeoutAt });
      return viewOf(record);
    });
  }
}
