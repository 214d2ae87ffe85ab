/** A daemon starts: the VMs that an earlier one left are adopted, or cleaned up after. */
import { thaw } from "../snapshots/freeze.ts";
import { VmsanError } from "../model/errors.ts";
import type { VmRecord } from "../model/vm.ts";
import { isOwn } from "../snapshots/disks.ts";
import type { RunningVm } from "../vmm/driver.ts";
import { tellNetwork } from "./starting/bring-up.ts";
import type { LiveGuest } from "./starting/await-guest.ts";
import { settleIn, standingOf } from "./records/copies.ts";
import type { Entry } from "./records/entry.ts";
import type { Lives } from "./lives.ts";
import { Mutex } from "../util/flow/mutex.ts";
import { endVmm, finishMending } from "./snapshots/bring-back.ts";
import { readMemory, syncMemory, tidy } from "./snapshots/memory.ts";

/** Milliseconds that a guest has to answer to one of the tokens that it may have. */
const TOKEN_TRIAL_MS = 3000;

/** Find the VMs that an earlier daemon left: adopt the living, clean up after the dead. */
export async function recover(lives: Lives): Promise<void> {
  const { records, broken, empty } = await lives.records.load();
  for (const one of broken) {
    lives.log.error(`${one.id}: its record cannot be read: ${one.why}`);
    lives.broken.set(one.id, one);
  }
  for (const id of empty) await lives.records.remove(id);
  await Promise.all(records.map((record) => recoverOne(lives, record)));
  const live = new Set([...records.map((record) => record.id), ...broken.map(({ id }) => id)]);
  const swept = await lives.stages.sweep(live);
  for (const what of swept.removed) lives.log.info(`removed ${what}, left by an earlier daemon`);
  for (const { what, why } of swept.failed) lives.log.error(`cannot remove ${what}: ${why}`);
}

/** Take up one VM; what goes wrong is its own affair. */
async function recoverOne(lives: Lives, record: VmRecord): Promise<void> {
  const entry: Entry = { record, mutex: new Mutex(), holders: 0, watchers: new Set() };
  lives.entries.set(record.id, entry);
  try {
    await ownUp(lives, record);
    if (record.status !== "suspended" && record.mending === undefined) delete record.suspended;
    await tidy(record);
    if (record.status === "creating") {
      lives.log.info(`${record.id}: its creation was interrupted; removing it`);
      await lives.discard(entry);
      return;
    }
    if (record.starting === true) {
      lives.log.info(`${record.id}: its start was interrupted`);
      await lives.settleDead(entry);
      return;
    }
    if (record.status === "suspended") return await recoverSleeping(lives, record);
    if (record.status !== "running" && record.status !== "paused") return;
    const driver = lives.stages.driver(record.driver);
    const running =
      record.process === undefined ? undefined : await driver.adopt(record.spec, record.process);
    if (running === undefined) {
      await lives.settleDead(entry);
      return;
    }
    lives.watch(entry, await letGoOn(lives, record, running));
    await lives.stages.shares.serve(record, running, await lives.records.token(record.id));
    if (record.guestNetwork !== undefined) {
      const { networks } = lives.stages;
      const { id, policy, ports, networks: places = [] } = record;
      const reason = await networks.resume(id, policy, ports, places);
      if (reason !== undefined && reason !== record.networkReason) {
        record.networkReason = reason;
        await lives.records.save(record);
      }
    }
    if (record.held === true && record.status !== "paused") void finishHold(lives, entry);
    if (record.placing === true) void finishPlacing(lives, entry);
    lives.armTimeout(entry);
    if (record.ephemeral) lives.awaitClaim(entry);
    lives.log.info(`${record.id}: found running (pid ${running.process.pid})`);
  } catch (error) {
    lives.log.error(`${record.id}: cannot take it up`, error);
  }
}

/** A sleeping VM: its process, if it has not been ended yet, is; its ports wake it. */
async function recoverSleeping(lives: Lives, record: VmRecord): Promise<void> {
  const { network } = record.spec;
  lives.report(record.id, await endVmm(record, lives.stages, undefined));
  await syncMemory(record);
  await lives.records.save(record);
  if (network === undefined || !lives.stages.networks.isUp(record.id)) return;
  const { id, policy, ports, networks = [] } = record;
  await lives.stages.networks.resume(id, policy, ports, networks);
  delete record.placing;
}

/** A guest whose work an earlier daemon held goes on. */
async function finishHold(lives: Lives, entry: Entry): Promise<void> {
  const { record } = entry;
  await entry.mutex.run(async () => {
    if (entry.guest === undefined || record.held !== true) return;
    try {
      await thaw(entry.guest);
      delete record.held;
      await lives.forgetMemory(record);
      await lives.records.save(record);
    } catch (error) {
      lives.log.error(`${record.id}: cannot let its work go on`, error);
    }
  });
}

/** The guest of a VM whose private networks were being changed is told of them. */
async function finishPlacing(lives: Lives, entry: Entry): Promise<void> {
  const { record } = entry;
  await entry.mutex.run(async () => {
    if (entry.guest === undefined || record.status !== "running") return;
    try {
      const limit = AbortSignal.timeout(lives.stages.bootLimitMs(record.accelerator));
      await tellNetwork(record, entry.guest, limit);
      delete record.placing;
      await lives.records.save(record);
    } catch (error) {
      lives.log.error(`${record.id}: cannot tell it of its networks`, error);
    }
  });
}

/** A VM that runs; what an earlier daemon held or had not finished mending goes on. */
async function letGoOn(lives: Lives, record: VmRecord, running: RunningVm): Promise<LiveGuest> {
  const { stages } = lives;
  const token = await lives.records.token(record.id);
  let guest: LiveGuest;
  if (record.mending !== undefined) {
    await running.resume();
    guest = await reach(lives, record, running, token);
    const signal = AbortSignal.timeout(stages.bootLimitMs(record.accelerator));
    await finishMending(record, guest, { token, stages, signal, log: lives.log });
  } else {
    guest = { running, channel: stages.openChannel(running, token) };
    if (record.held !== true || record.status === "paused") return guest;
    await finishLayers(lives, record, running);
    await running.resume();
    // Its work goes on once it is taken up: a guest that does not answer holds no daemon's start up.
    return guest;
  }
  delete record.held;
  await lives.forgetMemory(record);
  await lives.records.save(record);
  return guest;
}

/**
 * The guest of a VM that came out of a file: it answers to the token of the one that was saved, or
 * has been told its own already.
 */
async function reach(
  { stages }: Lives,
  record: VmRecord,
  running: RunningVm,
  token: string,
): Promise<LiveGuest> {
  const tokens = [token];
  if (record.suspended !== undefined) {
    const { image } = await readMemory(record, "");
    if (image.token !== token) tokens.unshift(image.token);
  }
  const limit = Date.now() + stages.bootLimitMs(record.accelerator);
  for (;;) {
    for (const one of tokens) {
      const channel = stages.openChannel(running, one);
      try {
        await channel.ready({ timeoutMs: TOKEN_TRIAL_MS });
        return { running, channel };
      } catch (error) {
        channel.close();
        const again = error instanceof VmsanError && error.code === "ERR_TIMEOUT_AGENT";
        if (!again || Date.now() > limit) throw error;
      }
    }
  }
}

/** Layers that were noted and perhaps not added yet: until they are, what is below them is written. */
async function finishLayers(lives: Lives, record: VmRecord, running: RunningVm): Promise<void> {
  const { disks } = record.spec;
  const layered = disks.some((disk) => isOwn(disk) && disk.backing !== undefined);
  if (!layered || !lives.stages.driver(record.driver).capabilities.diskLayers) return;
  await running.pause();
  for (const [index, disk] of disks.entries()) {
    if (isOwn(disk) && disk.backing !== undefined) await running.addLayer(index, disk.path);
  }
}

/**
 * See to it that a record speaks of its own directory and of what is its own. Of a copy it is
 * saved before anything else: nothing that its original has may be taken for its own.
 */
async function ownUp(lives: Lives, record: VmRecord): Promise<void> {
  const { id, spec } = record;
  const dir = lives.records.dir(id);
  const standing = standingOf(record, dir);
  if (standing === "own") return;
  lives.log.info(`${id}: a ${standing === "copy" ? "copy of" : "VM moved from"} ${spec.dir}`);
  settleIn(record, dir, standing);
  if (standing === "copy") {
    await lives.stages.networks.forget(id);
    await lives.records.dropSecrets(id);
  }
  await lives.records.save(record);
}
