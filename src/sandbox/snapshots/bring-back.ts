/** From a memory image to a guest that answers and knows who it is now. */
import { asVmsanError } from "../../model/errors.ts";
import type { VmRecord } from "../../model/vm.ts";
import { asPhase } from "../../util/flow/phases.ts";
import { together } from "../../util/flow/together.ts";
import { mend } from "../../snapshots/freeze.ts";
import type { MemoryImage } from "../../snapshots/store.ts";
import type { RunningVm } from "../../vmm/driver.ts";
import {
  answerLimitMs,
  attachNetwork,
  awaitTurn,
  guestConfig,
  lapsOf,
  tearDown,
} from "../starting/bring-up.ts";
import { awaitAgent, awaitConfigured } from "../starting/await-guest.ts";
import { consoleLength } from "../starting/boot-failure.ts";
import type { LiveGuest } from "../starting/await-guest.ts";
import type { EventLog } from "../records/entry.ts";
import type { Stages, Work } from "../stages.ts";

/** How a guest is brought back. */
export interface BringBack {
  record: VmRecord;
  /** Token that the guest shall answer to from now on. */
  token: string;
  /** Its memory, once its disks are in place. */
  image: () => Promise<MemoryImage>;
  /** The VM's network is there already. */
  attached?: boolean;
  stages: Stages;
  work: Work;
  log: EventLog;
  /** Keep the record; called before the guest's first instruction. */
  save: () => Promise<void>;
  /** Called once the memory is loaded, before the guest's first instruction. */
  loaded?: (running: RunningVm) => Promise<void>;
}

/** What there is of a VM that is being brought back. */
interface Attempt {
  guest?: LiveGuest;
  /** Ends its turn at a processor. */
  leave?: () => void;
  lap: ReturnType<typeof lapsOf>;
}

/**
 * Load a VM's memory, mend what is no longer true in it, let it go on. `record.mending` says why it
 * was in a file; without one nothing of the user's has ever run in it, and it is configured as
 * after a start.
 * On failure nothing of it runs any more.
 */
export async function bringBack(how: BringBack): Promise<LiveGuest> {
  return await attempt(how, async (made) => await become(how, made, await load(how, made)));
}

/**
 * Load a VM's memory, have its agent answer and do what `rehearse` says; it stands still then, and has become nobody yet.
 * On failure nothing of it runs any more.
 */
export async function makeReady(
  how: BringBack,
  rehearse: (guest: LiveGuest) => Promise<void>,
): Promise<LiveGuest> {
  return await attempt(how, async (made) => {
    const guest = await load(how, made);
    await rehearse(guest);
    await guest.running.pause();
    return guest;
  });
}

/** Let a VM that {@link makeReady} has made go on as the one that the record speaks of. On failure as that. */
export async function goOn(
  how: Omit<BringBack, "image" | "save">,
  ready: LiveGuest,
): Promise<LiveGuest> {
  return await attempt(how, async (made) => {
    const { record, stages, work } = how;
    made.guest = ready;
    const since = performance.now();
    made.leave = await awaitTurn(record, stages, work);
    const at = made.lap("queue", since);
    work.progress({ phase: "resume", message: `${record.driver} (${record.accelerator})` });
    await ready.running.resume();
    made.lap("resume", at);
    return await become(how, made, ready);
  });
}

/** Do one of these; on failure nothing of the VM is left but its network, if that was there before. */
async function attempt(
  how: Omit<BringBack, "image" | "save">,
  body: (made: Attempt) => Promise<LiveGuest>,
): Promise<LiveGuest> {
  const { record, stages, work } = how;
  const made: Attempt = { lap: lapsOf(record) };
  const since = performance.now();
  try {
    const guest = await body(made);
    made.lap("start", since);
    return guest;
  } catch (error) {
    if (how.attached === true) await endVmm(record, stages, made.guest);
    else await tearDown(record, stages, made.guest);
    work.signal.throwIfAborted();
    throw asVmsanError(error, `Cannot bring ${record.id} back`, "ERR_VM_RESTORE");
  } finally {
    made.leave?.();
  }
}

/** A VM's network, its memory, its agent's first answer. */
async function load(how: BringBack, made: Attempt): Promise<LiveGuest> {
  const { record, stages, work } = how;
  const driver = stages.driver(record.driver);
  const { lap } = made;
  const since = performance.now();
  const [image] = await together<[MemoryImage, void]>(
    work.signal,
    async () => await asPhase("disk", how.image),
    async (signal) => {
      if (how.attached !== true) await attachNetwork(record, stages, { ...work, signal });
    },
  );
  // Before the guest goes on: what it has open is of that time, and numbers of another would mean other files.
  if (image.shares !== undefined) await stages.shares.takeUp(record, image.shares);
  let at = lap("network", since);
  made.leave = await awaitTurn(record, stages, work);
  at = lap("queue", at);
  work.progress({ phase: "restore", message: `${record.driver} (${record.accelerator})` });
  const consoleFrom = await consoleLength(driver.consolePath(record.spec));
  const running = await driver.restore(record.spec, image.files, work.signal);
  record.process = running.process;
  record.isolation = running.isolation;
  const guest = { running, channel: stages.openChannel(running, image.token), consoleFrom };
  made.guest = guest;
  at = lap("load", at);
  await how.loaded?.(running);
  await how.save();
  await running.resume();
  await awaitAgent(record, driver, guest, answerLimitMs(record, stages, work), work.signal);
  lap("answer", at);
  return guest;
}

/** Tell the guest of a VM who it is. */
async function become(
  { record, token, stages, work, log }: Omit<BringBack, "image" | "save">,
  { lap }: Attempt,
  guest: LiveGuest,
): Promise<LiveGuest> {
  const at = performance.now();
  const config = guestConfig(record);
  const limitMs = answerLimitMs(record, stages, work);
  const configuring = { config, limitMs, signal: work.signal };
  const driver = stages.driver(record.driver);
  let said: string[] = [];
  await awaitConfigured(record, driver, guest, configuring, async (signal) => {
    said = await finishMending(record, guest, { token, stages, signal, log });
  });
  // A hook that has failed may have been there to make keys anew: whoever has asked is told as well.
  for (const message of said) work.progress({ phase: "mend", message });
  lap("mend", at);
  return guest;
}

/** What {@link finishMending} needs. */
export interface Mending {
  /** That the guest shall answer to from now on. */
  token: string;
  stages: Stages;
  signal: AbortSignal;
  log: EventLog;
}

/**
 * Tell the guest who it is now and serve its shared directories; its work goes on afterwards.
 * @returns sentences about what could not be mended, which are in the log
 */
export async function finishMending(
  record: VmRecord,
  guest: LiveGuest,
  { token, stages, signal, log }: Mending,
): Promise<string[]> {
  const config = { ...guestConfig(record), token };
  if (record.mending === undefined) {
    await guest.channel.configure(config, signal);
    return [];
  }
  const restored = { ...config, restored: record.mending };
  const serve = async (): Promise<void> => await stages.shares.serve(record, guest.running, token);
  const said = await mend(guest, restored, signal, serve);
  for (const text of said) log.error(`${record.id}: ${text}`);
  delete record.mending;
  return said;
}

/** End a VM's VMM and what belongs to it alone; its network stays. */
export async function endVmm(
  record: VmRecord,
  stages: Stages,
  guest: LiveGuest | undefined,
): Promise<{ what: string; why: string }[]> {
  const { spec, guestNetwork, networkReason } = record;
  const { network } = spec;
  const failed = await tearDown(record, { ...stages, networks: keepNetwork(stages) }, guest);
  if (network !== undefined) spec.network = network;
  if (guestNetwork !== undefined) record.guestNetwork = guestNetwork;
  if (networkReason !== undefined) record.networkReason = networkReason;
  return failed;
}

/** The networks, but for detaching. */
function keepNetwork(stages: Stages): Stages["networks"] {
  return { ...stages.networks, detach: async () => ({ removed: [], failed: [] }) };
}
