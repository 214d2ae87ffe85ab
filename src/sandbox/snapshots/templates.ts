/**
 * Warm starts: after the first start of an image on some machine a template is kept, booted and with
 * the image mounted, in which no program of the image has run. The next VM of the kind is a clone.
 */
import { createHash, randomBytes } from "node:crypto";
import { mkdir, readFile, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { basename, join } from "node:path";
import { messageOf } from "../../model/errors.ts";
import type { DiskAttachment, VmRecord } from "../../model/vm.ts";
import { parseVmRecord } from "../../schema/state.ts";
import { allocatedBytes, copySparse, syncFile } from "../../snapshots/files.ts";
import { memoryPaths, readMemoryImage, writeToken } from "../../snapshots/store.ts";
import { syncDirectory, writeFileAtomic } from "../../util/atomic.ts";
import { newVmId } from "../../util/names.ts";
import { attachNetwork, awaitAgent, tearDown, type LiveGuest } from "../starting/bring-up.ts";
import type { Sandboxes } from "../sandboxes.ts";
import type { Work } from "../stages.ts";
import { kernelDisks } from "../starting/new-vm.ts";
import { bringBack } from "./bring-back.ts";

const DOCUMENT = "template.json";
const DRAFT_RECORD = "vm.json";
const DRAFT = /^\.new-vm-[0-9a-f]{8}$/;
const KEY = /^[0-9a-f]{32}$/;
/** How long nothing may have been started before a template is made: the user's work comes first. */
const QUIET_MS = 4000;
/** Bytes that templates may take, unless VMSAN_TEMPLATE_BYTES says otherwise. */
const MAX_BYTES = 2 * 2 ** 30;

/** What a start needs to know of its VM besides the record. */
export interface WarmPlan {
  /** Absolute path of the disk image. */
  base: string;
  /** The writable disk is a copy of it. */
  flat: boolean;
}

/** Templates of one VMSAN_DIR. */
export class Templates {
  private readonly sandboxes: Sandboxes;
  private readonly dir: string;
  private readonly stopping = new AbortController();
  /** Wanted, by key. */
  private readonly queue = new Map<string, { record: VmRecord; plan: WarmPlan }>();
  private timer: NodeJS.Timeout | undefined;
  private making: Promise<void> = Promise.resolve();

  /** @param dir absolute path of the directory of templates */
  constructor(sandboxes: Sandboxes, dir: string) {
    this.sandboxes = sandboxes;
    this.dir = dir;
    sandboxes.warm = this;
  }

  /** Remove what a killed daemon was making, with all that ran for it. */
  async recover(): Promise<void> {
    for (const name of await this.names()) {
      if (!DRAFT.test(name)) continue;
      const draft = join(this.dir, name);
      try {
        const text = await readFile(join(draft, DRAFT_RECORD), "utf8");
        const record = parseVmRecord(JSON.parse(text));
        this.sandboxes.report(record.id, await tearDown(record, this.sandboxes.stages, undefined));
      } catch (error) {
        this.sandboxes.log.info(`${draft}: nothing ran of it (${messageOf(error)})`);
      }
      await rm(draft, { recursive: true, force: true });
    }
  }

  private async names(): Promise<string[]> {
    try {
      return await readdir(this.dir);
    } catch {
      // ENOENT: no template has been made yet.
      return [];
    }
  }

  /** Name of the template that a VM would start from; undefined when it must boot. */
  private async keyOf(
    { spec, driver, policy }: VmRecord,
    plan: WarmPlan,
  ): Promise<string | undefined> {
    const found = this.sandboxes.stages.driver(driver);
    // Measured to be faster with QEMU; what has an init of its own has run programs when it is up.
    if (driver !== "qemu" || spec.kernelArgs.some((arg) => arg.startsWith("vmsan.init="))) return;
    const machine = await found.machine();
    const base = await stat(plan.base);
    const parts = [
      machine,
      [plan.base, base.size, base.mtimeMs, plan.flat],
      [spec.kernel, spec.initramfs, spec.kernelArgs, kernelDisks(spec)],
      [spec.vcpus, spec.memMib, policy.mode !== "none"],
    ];
    return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 32);
  }

  /** Directory of the template for a VM with a disk of that size. */
  private async placeOf(record: VmRecord, plan: WarmPlan): Promise<string | undefined> {
    const key = await this.keyOf(record, plan);
    if (key === undefined) return undefined;
    const sized = createHash("sha256").update(`${key} ${record.diskSizeBytes}`).digest("hex");
    return join(this.dir, sized.slice(0, 32));
  }

  /**
   * Start a VM from a template.
   * @returns undefined when there is none; nothing has been made then
   */
  async start(record: VmRecord, plan: WarmPlan, work: Work): Promise<LiveGuest | undefined> {
    const place = await this.placeOf(record, plan);
    if (place === undefined) return undefined;
    let own: DiskAttachment;
    try {
      own = JSON.parse(await readFile(join(place, DOCUMENT), "utf8")) as DiskAttachment;
      const now = new Date();
      await utimes(join(place, DOCUMENT), now, now);
    } catch {
      // ENOENT: there is none.
      return undefined;
    }
    const { stages, records, log } = this.sandboxes;
    const { spec } = record;
    const path = join(spec.dir, basename(own.path));
    const last = kernelDisks(spec);
    try {
      return await bringBack({
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
        save: () => records.save(record),
      });
    } catch (error) {
      work.signal.throwIfAborted();
      log.error(`${record.id}: cannot start from a template; booting`, error);
      await rm(path, { force: true });
      await rm(place, { recursive: true, force: true });
      spec.disks = last;
      return undefined;
    }
  }

  /** A VM has booted: keep a template for the next one, when there is nothing else to do. */
  async wanted(record: VmRecord, plan: WarmPlan): Promise<void> {
    const place = await this.placeOf(record, plan);
    if (place === undefined || this.stopping.signal.aborted) return;
    this.queue.set(place, { record: structuredClone(record), plan });
    this.soon();
  }

  private soon(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      if (this.sandboxes.starting) {
        this.soon();
        return;
      }
      this.making = this.making.then(async () => await this.makeNext());
    }, QUIET_MS);
  }

  private async makeNext(): Promise<void> {
    const next = this.queue.entries().next().value;
    if (next === undefined) return;
    const [place, { record, plan }] = next;
    this.queue.delete(place);
    try {
      await stat(join(place, DOCUMENT)).then(
        () => undefined,
        async () => await this.make(place, record, plan),
      );
      await this.bound(place);
    } catch (error) {
      if (!this.stopping.signal.aborted) this.sandboxes.log.error("cannot keep a template", error);
    }
    if (this.queue.size > 0 && !this.stopping.signal.aborted) this.soon();
  }

  /** Boot a VM as the given one was, up to where it is configured, and keep it. */
  private async make(place: string, like: VmRecord, plan: WarmPlan): Promise<void> {
    const { stages } = this.sandboxes;
    const work: Work = { signal: this.stopping.signal, progress: () => undefined };
    const id = newVmId();
    const dir = join(this.dir, `.new-${id}`);
    const role = plan.flat ? "root" : "upper";
    const own: DiskAttachment = { role, path: join(dir, `${role}.ext4`), readonly: false };
    const { name: _name, process: _process, ...rest } = like;
    const record: VmRecord = {
      ...rest,
      id,
      status: "creating",
      spec: { ...like.spec, id, dir, disks: [...baseDisks(plan), own, ...kernelDisks(like.spec)] },
      policy: closed(like),
      ports: [],
    };
    delete record.spec.network;
    delete record.guestNetwork;
    let guest: LiveGuest | undefined;
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const save = async (): Promise<void> =>
      await writeFileAtomic(join(dir, DRAFT_RECORD), `${JSON.stringify(record)}\n`);
    try {
      await save();
      if (plan.flat) await stages.cloneRoot(plan.base, own.path, record.diskSizeBytes, work.signal);
      else await stages.createUpper(own.path, record.diskSizeBytes);
      await attachNetwork(record, stages, work);
      const driver = stages.driver(record.driver);
      const running = await driver.start(record.spec, work.signal);
      record.process = running.process;
      await save();
      const token = randomBytes(16).toString("hex");
      guest = { running, channel: stages.openChannel(running, token) };
      await awaitAgent(record, driver, guest, stages.bootLimitMs(record.accelerator), work.signal);
      guest.channel.close();
      await running.pause();
      await running.snapshot(memoryPaths(dir), "full");
      await writeToken(dir, token);
      this.sandboxes.report(id, await tearDown(record, stages, guest));
      await this.keep(dir, place, own);
    } catch (error) {
      this.sandboxes.report(id, await tearDown(record, stages, guest));
      await rm(dir, { recursive: true, force: true });
      throw error;
    }
  }

  /** Put a finished template in its place at one stroke, with nothing that it does not need. */
  private async keep(draft: string, place: string, own: DiskAttachment): Promise<void> {
    const disk = basename(own.path);
    const needed = new Set([
      ...Object.values(memoryPaths(draft)).map((path) => basename(path)),
      disk,
      "token",
    ]);
    for (const name of await readdir(draft)) {
      const path = join(draft, name);
      if (!needed.has(name)) await rm(path, { recursive: true, force: true });
      else await syncFile(path);
    }
    await writeFileAtomic(join(draft, DOCUMENT), JSON.stringify({ ...own, path: disk }));
    await rm(place, { recursive: true, force: true });
    await rename(draft, place);
    await syncDirectory(this.dir);
  }

  /** Remove the least recently used templates beyond what they may take. */
  private async bound(keep: string): Promise<void> {
    const given = Number(process.env["VMSAN_TEMPLATE_BYTES"]);
    let left = Number.isFinite(given) && given > 0 ? given : MAX_BYTES;
    const found: { path: string; bytes: number; used: number }[] = [];
    for (const name of (await this.names()).filter((one) => KEY.test(one))) {
      const path = join(this.dir, name);
      let bytes = 0;
      for (const file of await readdir(path)) bytes += await allocatedBytes(join(path, file));
      const used = await stat(join(path, DOCUMENT)).then(
        ({ mtimeMs }) => mtimeMs,
        () => 0,
      );
      found.push({ path, bytes, used: path === keep ? Number.POSITIVE_INFINITY : used });
    }
    for (const { path, bytes } of found.toSorted((a, b) => b.used - a.used)) {
      left -= bytes;
      if (left < 0 && path !== keep) await rm(path, { recursive: true, force: true });
    }
  }

  /** End what is under way, and wait until nothing of it is left. */
  async close(): Promise<void> {
    clearTimeout(this.timer);
    this.queue.clear();
    this.stopping.abort(new Error("the daemon ends"));
    await this.making;
  }
}

/** The shared disk of a VM, if it has one. */
function baseDisks(plan: WarmPlan): DiskAttachment[] {
  return plan.flat ? [] : [{ role: "base", path: plan.base, readonly: true }];
}

/** The same card, with everything closed: nothing shall come in or out while nobody uses it. */
function closed({ policy }: VmRecord): VmRecord["policy"] {
  const mode = policy.mode === "none" ? "none" : "deny-all";
  return {
    mode,
    allowedDomains: [],
    allowedCidrs: [],
    deniedCidrs: [],
    allowedPorts: [],
    allowHostPorts: [],
    allowIcmp: false,
    allowUdp: false,
  };
}
