/**
 * Warm starts: after the first start of an image on some machine a template is kept, booted and with
 * the image mounted, in which no program of the image has run. The next VM of the kind is a clone.
 */
import { readFile, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { CreateRequest } from "../../model/api.ts";
import { messageOf } from "../../model/errors.ts";
import type { DiskAttachment, MachineIdentity, VmRecord } from "../../model/vm.ts";
import { parseVmRecord } from "../../schema/state.ts";
import { isOwn } from "../../snapshots/disks.ts";
import { copySparse } from "../../snapshots/files.ts";
import { memoryPaths, readMemoryImage } from "../../snapshots/store.ts";
import type { LiveGuest } from "../starting/await-guest.ts";
import { lapsOf, tearDown, type BootedMachine } from "../starting/bring-up.ts";
import { kernelDisks, newRecord, setBootFiles } from "../starting/new-vm.ts";
import { settleIn, standingOf } from "../records/copies.ts";
import type { Sandboxes } from "../sandboxes.ts";
import type { DriverChoice, Work } from "../stages.ts";
import { bringBack, goOn, makeReady } from "../snapshots/bring-back.ts";
import type { BringBack } from "../snapshots/bring-back.ts";
import { imageAhead, machineAhead, whyNotAhead } from "./ahead.ts";
import { hasOwnInit, machineWish } from "./booted.ts";
import { MakingLine } from "./line.ts";
import { baseDisks, makeMachine, makeOfImage, rehearse, type Bench } from "./make.ts";
import { quiet } from "./quiet.ts";
import { ReadyClones } from "./ready.ts";
import { DRAFT_RECORD, TemplateShelf, nameOf, type Wish } from "./template-shelf.ts";
import type { ReadyClone, WarmPlan, WarmStart } from "./warm-plan.ts";

/** How long nothing may have gone on before a template is made: the user's work comes first. */
const QUIET_MS = 4000;
/** How long it may go on before one is made all the same, by a VM that runs when nothing else does. */
const PATIENCE_MS = 60_000;
/** Bytes of the host's disk that must be free for one to be made. */
const ENOUGH = 2 ** 30;

/** Templates of one VMSAN_DIR. */
export class Templates {
  private readonly sandboxes: Sandboxes;
  private readonly shelf: TemplateShelf;
  private readonly stopping = new AbortController();
  private readonly line: MakingLine;
  private readonly ready: ReadyClones;
  private readonly bench: Bench;
  private hadRoom = true;

  /** @param dir absolute path of the directory of templates */
  constructor(sandboxes: Sandboxes, dir: string) {
    this.sandboxes = sandboxes;
    this.shelf = new TemplateShelf(dir);
    const { signal } = this.stopping;
    this.bench = { sandboxes, shelf: this.shelf, signal };
    const isBusy = (): boolean => sandboxes.starting;
    this.line = new MakingLine({
      isThere: async (key) => (await this.shelf.find(key)) !== undefined,
      whenQuiet: async () =>
        await quiet({ quietMs: QUIET_MS, patienceMs: PATIENCE_MS, isBusy, signal }),
      failed: (error, key = "") => sandboxes.log.error(`cannot keep a template ${key}`, error),
      signal,
    });
    this.ready = new ReadyClones(sandboxes, async (request, choice, plan, signal) =>
      this.makeClone(request, choice, plan, signal),
    );
    sandboxes.warm = this;
  }

  /** Remove what a killed daemon was making, with all that ran for it. */
  async recover(): Promise<void> {
    for (const draft of await this.shelf.unfinished()) {
      try {
        const text = await readFile(join(draft, DRAFT_RECORD), "utf8");
        const record = parseVmRecord(JSON.parse(text));
        const standing = standingOf(record, draft);
        if (standing !== "own") settleIn(record, draft, standing);
        // What its original has is being made there.
        if (standing === "copy") await this.sandboxes.stages.networks.forget(record.id);
        this.sandboxes.report(record.id, await tearDown(record, this.sandboxes.stages, undefined));
      } catch (error) {
        this.sandboxes.log.info(`${draft}: nothing ran of it (${messageOf(error)})`);
      }
      await rm(draft, { recursive: true, force: true });
    }
    await this.shelf.sweep();
  }

  /** The template that a VM would start from; undefined when it must boot. */
  private async wishOf(record: VmRecord, plan: WarmPlan): Promise<Wish | undefined> {
    const { spec, policy } = record;
    // What has an init of its own has run programs when it is up; volumes are not everybody's.
    if (hasOwnInit(spec) || spec.disks.some(({ role }) => role === "data")) return undefined;
    const machine = await this.machineOf(record);
    if (machine === undefined) return undefined;
    const base = await stat(plan.base);
    const modules = kernelDisks(spec).map(({ path }) => path);
    const card = policy.mode !== "none";
    const kind = [plan.flat, spec.kernelArgs, spec.vcpus, spec.memMib, card, record.diskSizeBytes];
    const slot = nameOf([plan.base, record.kernelFile ?? "", ...kind]);
    const needs = [plan.base, spec.kernel, spec.initramfs, ...modules];
    const key = nameOf([slot, machine, needs, base.size, base.mtimeMs]);
    return { key, about: { needs, machine, slot } };
  }

  /**
   * Start a VM from a template.
   * @returns without a guest when there is none, or it fails; nothing has been made then
   */
  async start(
    record: VmRecord,
    plan: WarmPlan,
    work: Work,
    ready?: ReadyClone,
  ): Promise<WarmStart> {
    const { log } = this.sandboxes;
    const since = performance.now();
    const wish = await this.wishOf(record, plan);
    if (ready !== undefined) {
      const guest = await this.goOnFrom(ready, record, wish?.key, work);
      if (guest !== undefined) return { guest };
    }
    const found = wish && (await this.fromTemplate(wish.key, record, plan, work));
    lapsOf(record)("find", since);
    if (found === undefined) return {};
    const last = kernelDisks(record.spec);
    try {
      return { guest: await bringBack(found.how) };
    } catch (error) {
      work.signal.throwIfAborted();
      log.error(`${record.id}: cannot start from a template; booting`, error);
      await this.forgetDisk(record, last);
      record.timings = {};
      return { drop: found.drop };
    }
  }

  /** How a VM is brought up from the template of a key, and what forgets that template; undefined when there is none. */
  private async fromTemplate(
    key: string,
    record: VmRecord,
    plan: WarmPlan,
    work: Work,
  ): Promise<{ how: BringBack; drop: () => Promise<void> } | undefined> {
    const template = await this.shelf.find(key);
    if (template === undefined) return undefined;
    const own = template.disk;
    if (own === undefined) return undefined;
    const place = this.shelf.place(key);
    const { stages, records, log } = this.sandboxes;
    const { spec } = record;
    const path = join(spec.dir, basename(own.path));
    const last = kernelDisks(spec);
    const how: BringBack = {
      record,
      token: await records.token(record.id),
      stages,
      work,
      log,
      image: async () => {
        await copySparse(join(place, own.path), path);
        spec.disks = [...baseDisks(plan), { ...own, path }, ...last];
        return await readMemoryImage(place);
      },
      loaded: async () => {
        // It may have waited its turn for minutes. Of another template the memory does not know this disk.
        if (!(await this.shelf.holds(key, template))) throw new Error("the template has gone");
      },
      save: () => records.save(record),
    };
    const drop = async (): Promise<void> => {
      if (await this.shelf.holds(key, template)) await this.shelf.drop(key);
    };
    return { how, drop };
  }

  /** Remove a VM's own disk, of which nothing is used. @param left the disks that it keeps */
  private async forgetDisk({ spec }: VmRecord, left: DiskAttachment[]): Promise<void> {
    for (const disk of spec.disks) if (isOwn(disk)) await rm(disk.path, { force: true });
    spec.disks = left;
  }

  /** Let a clone that waits go on as that VM; undefined when it is of another template by now, or cannot. */
  private async goOnFrom(
    ready: ReadyClone,
    record: VmRecord,
    key: string | undefined,
    work: Work,
  ): Promise<LiveGuest | undefined> {
    const { stages, records, log } = this.sandboxes;
    const last = kernelDisks(record.spec);
    if (ready.key === key) {
      try {
        const token = await records.token(record.id);
        return await goOn({ record, token, stages, work, log }, ready.guest);
      } catch (error) {
        work.signal.throwIfAborted();
        log.error(`${record.id}: cannot go on from a clone that waited; taking a new one`, error);
      }
    } else this.sandboxes.report(record.id, await tearDown(record, stages, ready.guest));
    await this.forgetDisk(record, last);
    delete record.timings["resume"];
    return undefined;
  }

  /** {@inheritDoc ReadyClones.take} */
  async take(
    request: CreateRequest,
    choice: DriverChoice,
    signal: AbortSignal,
  ): Promise<ReadyClone | undefined> {
    return await this.ready.take(request, choice, signal);
  }

  /** {@inheritDoc ReadyClones.next} */
  next(request: CreateRequest, choice: DriverChoice, plan: WarmPlan): void {
    this.ready.next(request, choice, plan);
  }

  /** Make a clone that waits; undefined when there is no template. On failure nothing of it is left. */
  private async makeClone(
    request: CreateRequest,
    choice: DriverChoice,
    plan: WarmPlan,
    signal: AbortSignal,
  ): Promise<Omit<ReadyClone, "end"> | undefined> {
    const { stages, records } = this.sandboxes;
    const work: Work = { signal, progress: () => undefined };
    const id = await this.sandboxes.claimId();
    const record = newRecord(id, records.dir(id), request, choice);
    try {
      setBootFiles(record.spec, await stages.bootFiles(record.kernelFile, work));
      const wish = await this.wishOf(record, plan);
      const found = wish && (await this.fromTemplate(wish.key, record, plan, work));
      if (wish === undefined || found === undefined) {
        await records.remove(id);
        return undefined;
      }
      // Before anything is made: the next daemon removes what is still being created.
      await records.save(record);
      // As for its template: an emulator keeps what it has translated meanwhile.
      const guest = await makeReady(found.how, async ({ channel }) => {
        const limit = AbortSignal.timeout(stages.bootLimitMs(record.accelerator));
        await rehearse(channel, record, AbortSignal.any([signal, limit]));
      });
      return { record, key: wish.key, guest };
    } catch (error) {
      await records.remove(id);
      throw error;
    }
  }

  /** A booted machine that a VM can start from, its disks in place; undefined when there is none. */
  async findMachine(record: VmRecord): Promise<BootedMachine | undefined> {
    const wish = await this.machineWishOf(record);
    if (wish === undefined || (await this.shelf.find(wish.key)) === undefined) return undefined;
    return {
      files: memoryPaths(this.shelf.place(wish.key)),
      drop: async (why) => {
        this.sandboxes.log.error(`${record.id}: cannot start from a booted machine; booting`, why);
        await this.shelf.drop(wish.key);
      },
    };
  }

  private async machineWishOf(record: VmRecord): Promise<Wish | undefined> {
    const machine = await this.machineOf(record);
    return machine && machineWish(record, machine);
  }

  /** What the memory of a VM's machine depends on; undefined for a driver whose VMs all boot. */
  private async machineOf({ driver }: VmRecord): Promise<MachineIdentity | undefined> {
    return driver === "qemu" ? await this.sandboxes.stages.driver(driver).machine() : undefined;
  }

  /**
   * A VM runs: keep what the next one can start from, when there is nothing else to do: a booted machine, and a template of its image
   * (if there is a plan).
   */
  async wanted(record: VmRecord, plan: WarmPlan | undefined): Promise<void> {
    const like = structuredClone(record);
    const machine = await this.machineWishOf(like);
    const image = plan && (await this.wishOf(like, plan));
    if (machine !== undefined)
      this.line.add(
        machine.key,
        this.whereRoom(async () => await makeMachine(this.bench, machine, like)),
      );
    if (image !== undefined && plan !== undefined)
      this.line.add(
        image.key,
        this.whereRoom(async () => await makeOfImage(this.bench, image, like, plan)),
      );
  }

  /** {@inheritDoc WarmStarts.ahead} */
  async ahead(request: CreateRequest): Promise<string | undefined> {
    const { sandboxes } = this;
    const choice = await sandboxes.stages.chooseDriver(request.driver, request.host);
    const why = whyNotAhead(request, choice);
    if (why !== undefined) return why;
    const work: Work = { signal: this.stopping.signal, progress: () => undefined };
    // The machine first: it is for every image, and the user's first VM may come at any moment.
    await this.wanted(await machineAhead(sandboxes, request, choice, work), undefined);
    const make = async (): Promise<void> =>
      await imageAhead(sandboxes, request, choice, work, async (record, plan) =>
        this.wanted(record, plan),
      );
    this.line.add(`ahead-${nameOf(request)}`, this.whereRoom(make));
    return undefined;
  }

  /** Do that unless the host's disk is nearly full: what is left of it is for the disks of VMs. */
  private whereRoom(make: () => Promise<void>): () => Promise<void> {
    return async () => {
      const hasRoom = (await this.shelf.room()) >= ENOUGH;
      if (hasRoom) await make();
      else if (this.hadRoom)
        this.sandboxes.log.info("no templates are made: the disk is nearly full");
      this.hadRoom = hasRoom;
    };
  }

  /** {@inheritDoc WarmStarts.makeRoom} */
  async makeRoom(): Promise<void> {
    // Those that wait map the memory of theirs: it is freed with the last of them.
    await this.ready.giveUp();
    const count = await this.shelf.clear();
    if (count > 0) this.sandboxes.log.info(`${count} templates are removed: the disk is full`);
  }

  /** End what is under way and what waits, and wait until nothing of it is left. */
  async close(): Promise<void> {
    this.stopping.abort(new Error("the daemon ends"));
    await this.line.close();
    await this.ready.close();
  }
}
