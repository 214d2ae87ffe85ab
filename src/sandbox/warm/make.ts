/** How templates are made: a VM of low priority boots until it can be kept, and its memory is what is kept. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { AgentChannel } from "../../agent/channel.ts";
import { forgetStream } from "../../agent/commands.ts";
import type { GuestConfig } from "../../agent/config.ts";
import { newToken } from "../../agent/handshake.ts";
import { awaitHeld } from "../../agent/held.ts";
import { startStream } from "../../agent/streams.ts";
import { closedPolicy } from "../../model/policy.ts";
import type { DiskAttachment, VmRecord } from "../../model/vm.ts";
import { memoryFiles, memoryPaths, writeToken } from "../../snapshots/store.ts";
import type { RunningVm } from "../../vmm/driver.ts";
import { writeFileAtomic } from "../../util/atomic.ts";
import { newVmId } from "../../util/names.ts";
import { awaitAgent } from "../starting/await-guest.ts";
import { attachNetwork, tearDown } from "../starting/bring-up.ts";
import { kernelDisks } from "../starting/new-vm.ts";
import type { Sandboxes } from "../sandboxes.ts";
import type { Work } from "../stages.ts";
import { blankDisks } from "./booted.ts";
import { DRAFT_RECORD, type TemplateShelf, type Wish } from "./template-shelf.ts";
import type { WarmPlan } from "./warm-plan.ts";

/** With what templates are made. */
export interface Bench {
  sandboxes: Sandboxes;
  shelf: TemplateShelf;
  /** Ends what is under way. */
  signal: AbortSignal;
}

/** What makes one kind of template another than the other. */
interface TemplateKind {
  /** The VM's own disk, a name in the template's directory, which is kept with the memory. */
  disk?: DiskAttachment;
  /** Make the disks that it boots with. @param dir absolute path of the template's directory */
  disks: (dir: string, signal: AbortSignal) => Promise<DiskAttachment[]>;
  /** Wait until the guest can be kept; nothing speaks to it any more then. */
  ready: (record: VmRecord, running: RunningVm, signal: AbortSignal) => Promise<void>;
}

/** Keep a template of an image: booted, the image mounted, its agent rehearsed. */
export async function makeOfImage(
  on: Bench,
  wish: Wish,
  like: VmRecord,
  plan: WarmPlan,
): Promise<void> {
  const { stages } = on.sandboxes;
  const role = plan.flat ? "root" : "upper";
  const own: DiskAttachment = { role, path: `${role}.ext4`, readonly: false };
  await make(on, wish, like, {
    disk: own,
    disks: async (dir, signal) => {
      const path = join(dir, own.path);
      if (plan.flat) await stages.cloneRoot(plan.base, path, like.diskSizeBytes, signal);
      else await stages.createUpper(path, like.diskSizeBytes);
      return [...baseDisks(plan), { ...own, path }, ...kernelDisks(like.spec)];
    },
    ready: async (record, running, signal) => {
      const token = newToken();
      const guest = { running, channel: stages.openChannel(running, token) };
      try {
        const limitMs = stages.bootLimitMs(record.accelerator);
        await awaitAgent(record, stages.driver(record.driver), guest, limitMs, signal);
        await rehearse(guest.channel, like, signal);
      } finally {
        guest.channel.close();
      }
      await writeToken(record.spec.dir, token);
    },
  });
}

/** Keep a booted machine that waits for its disks. */
export async function makeMachine(on: Bench, wish: Wish, like: VmRecord): Promise<void> {
  await make(on, wish, like, {
    disks: async (dir) => await blankDisks(like, dir),
    ready: async (_record, running, signal) => {
      await awaitHeld((opening) => running.connect(opening), signal);
    },
  });
}

/** Boot a VM as the given one was, on other disks and until it is ready, and keep its memory. */
async function make(
  { sandboxes, shelf, signal }: Bench,
  { key, about }: Wish,
  like: VmRecord,
  { disk, disks, ready }: TemplateKind,
): Promise<void> {
  const { stages } = sandboxes;
  const work: Work = { signal, progress: () => undefined };
  const id = newVmId();
  const dir = await shelf.begin(id);
  const { name: _name, process: _process, ...rest } = like;
  const record: VmRecord = {
    ...rest,
    id,
    status: "creating",
    spec: { ...like.spec, id, dir, background: true },
    // The same card, with everything closed: nothing shall come in or out while nobody uses it.
    policy: closedPolicy(like.policy.mode === "none" ? "none" : "deny-all"),
    ports: [],
  };
  delete record.spec.network;
  delete record.guestNetwork;
  delete record.networks;
  delete record.secrets;
  const save = async (): Promise<void> =>
    await writeFileAtomic(join(dir, DRAFT_RECORD), `${JSON.stringify(record)}\n`);
  try {
    await save();
    record.spec.disks = await disks(dir, work.signal);
    await attachNetwork(record, stages, work);
    const running = await stages.driver(record.driver).start(record.spec, work.signal);
    record.process = running.process;
    await save();
    const limit = AbortSignal.timeout(2 * stages.bootLimitMs(record.accelerator));
    await ready(record, running, AbortSignal.any([work.signal, limit]));
    await running.pause();
    await running.snapshot(memoryPaths(dir), "full");
    sandboxes.report(id, await tearDown(record, stages, undefined));
    const names = [...Object.values(memoryFiles), ...(disk === undefined ? [] : [disk.path])];
    await shelf.keep(dir, key, names, { ...about, ...(disk && { disk }) });
  } catch (error) {
    sandboxes.report(id, await tearDown(record, stages, undefined));
    await rm(dir, { recursive: true, force: true });
    throw error;
  }
}

/**
 * Have the guest of a template, or of a clone that is to wait, do once what each VM is asked for: it starts the agent's own program, and
 * writes the files of a configuration. Of the image nothing is run.
 */
export async function rehearse(
  channel: AgentChannel,
  like: VmRecord,
  signal: AbortSignal,
): Promise<void> {
  const own = startStream(
    channel,
    { kind: "exec", argv: ["/proc/1/exe", "version"], user: "0:0", workdir: "/", stdin: false },
    { signal, onStdout: () => undefined, onStderr: () => undefined },
  );
  await own.exit;
  await forgetStream(channel, own.id, signal);
  await channel.configure(rehearsalOf(like), signal);
}

/**
 * What the guest of a template is told: placeholders, each the shortest of its kind, so that those of
 * clones are written over them. Its card stays down: nothing of a network shall be in its memory.
 */
function rehearsalOf({ image, guestNetwork }: VmRecord): GuestConfig {
  const zeros = "0".repeat(32);
  const { entrypoint = [], cmd = [] } = image?.config ?? {};
  const names = guestNetwork?.dns ?? [];
  return {
    hostname: "x",
    machineId: zeros,
    generation: zeros,
    network: { interfaces: [], dns: names.slice(0, 1).map(() => "0.0.0.0"), search: [], hosts: [] },
    rehearsal: { programs: [...entrypoint.slice(0, 1), ...cmd.slice(0, 1)] },
  };
}

/** The shared disk of a VM, if it has one. */
export function baseDisks(plan: WarmPlan): DiskAttachment[] {
  return plan.flat ? [] : [{ role: "base", path: plan.base, readonly: true }];
}
