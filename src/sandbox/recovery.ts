/** A daemon starts: the VMs that an earlier one left are adopted, or cleaned up after. */
import { thaw } from "../snapshots/freeze.ts";
import type { VmRecord } from "../model/vm.ts";
import type { LiveGuest } from "./starting/bring-up.ts";
import { settleIn, standingOf } from "./records/copies.ts";
import type { Entry } from "./records/entry.ts";
import type { Lives } from "./lives.ts";
import { Mutex } from "./mutex.ts";
import { endVmm, finishMending } from "./snapshots/bring-back.ts";

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
    const channel = lives.stages.openChannel(running, await lives.records.token(record.id));
    const guest = { running, channel };
    await letGoOn(lives, record, guest);
    lives.watch(entry, guest);
    await lives.stages.shares.serve(record, running, await lives.records.token(record.id));
    if (record.guestNetwork !== undefined) {
      const { networks } = lives.stages;
      const reason = await networks.resume(record.id, record.policy, record.ports);
      if (reason !== undefined && reason !== record.networkReason) {
        record.networkReason = reason;
        await lives.records.save(record);
      }
    }
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
  await lives.records.save(record);
  if (network === undefined || !lives.stages.networks.isUp(record.id)) return;
  await lives.stages.networks.resume(record.id, record.policy, record.ports);
}

/** What an earlier daemon held or had not finished mending goes on. */
async function letGoOn(lives: Lives, record: VmRecord, guest: LiveGuest): Promise<void> {
  const { mending, held, status } = record;
  if (mending === undefined && (held !== true || status === "paused")) return;
  await guest.running.resume();
  const limit = AbortSignal.timeout(lives.stages.bootLimitMs(record.accelerator));
  if (mending === undefined) await thaw(guest);
  else await finishMending(record, guest, undefined, limit, lives.log);
  delete record.held;
  await lives.forgetMemory(record);
  await lives.records.save(record);
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
    await lives.records.dropToken(id);
  }
  await lives.records.save(record);
}
