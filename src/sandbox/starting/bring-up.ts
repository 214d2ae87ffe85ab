/** From a VM's record to a guest that answers: network, VMM, channel, configuration. */
import { randomBytes } from "node:crypto";
import type { GuestConfig, InterfaceConfig } from "../../agent/config.ts";
import { asVmsanError, messageOf } from "../../model/errors.ts";
import type { VmRecord } from "../../model/vm.ts";
import { letGo } from "../../agent/held.ts";
import type { SnapshotFiles } from "../../vmm/driver.ts";
import { secretConfig } from "../records/secrets.ts";
import { guestMounts, servedOf } from "./mounts.ts";
import { asPhase, notePhase } from "../../util/flow/phases.ts";
import { awaitAgent, awaitConfigured } from "./await-guest.ts";
import { attemptsFor, consoleLength } from "./boot-failure.ts";
import type { LiveGuest } from "./await-guest.ts";
import type { Stages, Work } from "../stages.ts";

/** A machine that has booted already, for nobody, and waits for its disks. */
export interface BootedMachine {
  /** Its memory. */
  files: SnapshotFiles;
  /** Forget it: a VM could not be started from it. */
  drop(why: unknown): Promise<void>;
}

/** Finds the booted machine that a VM can start from, its disks in place. */
export type FindMachine = (record: VmRecord) => Promise<BootedMachine | undefined>;

/** What the guest is told of its card: its addresses, and from which it speaks to whom. */
function cardConfig({ guestNetwork, networks = [] }: VmRecord): InterfaceConfig[] {
  if (guestNetwork === undefined) return [];
  const { mac, ipv4, ipv6, gateway4, gateway6, mtu } = guestNetwork;
  const own = [ipv4, ipv6].filter((address) => address !== undefined);
  return [
    {
      mac,
      addresses: [...own, ...networks.map(({ address }) => `${address}/32`)],
      ...(gateway4 === undefined ? {} : { gateway4 }),
      ...(gateway6 === undefined ? {} : { gateway6 }),
      routes: networks.map(({ subnet, address }) => ({ to: subnet, source: address })),
      mtu,
    },
  ];
}

/** Tell a running guest of the networks that it is in now. */
export async function tellNetwork(
  record: VmRecord,
  { channel }: LiveGuest,
  signal: AbortSignal,
): Promise<void> {
  const { network } = guestConfig(record);
  if (network !== undefined) await channel.configure({ network }, signal);
}

/** What the guest is told once its agent answers; the same after a start and a restore. */
export function guestConfig(record: VmRecord): GuestConfig & { time: { unixNs: string } } {
  const network = record.guestNetwork;
  const hostname = record.name ?? record.id;
  const config = record.image?.config;
  const workdir = record.defaults.workdir ?? config?.workingDir ?? "";
  return {
    hostname,
    // What Docker makes for a container: images need not hold them.
    directories: [...(workdir.startsWith("/") ? [workdir] : []), ...(config?.volumes ?? [])],
    ...(record.mending === undefined
      ? { mounts: guestMounts(record, record.startedAt === undefined) }
      : {}),
    time: { unixNs: String(BigInt(Date.now()) * 1_000_000n) },
    seed: randomBytes(64).toString("base64"),
    generation: randomBytes(16).toString("hex"),
    // What comes out of a file has them, and may have changed them.
    ...(record.sysctls !== undefined && record.mending === undefined
      ? { sysctls: record.sysctls }
      : {}),
    ...sharesConfig(record),
    ...secretConfig(record),
    ...(record.machineId === undefined ? {} : { machineId: record.machineId }),
    network: {
      interfaces: cardConfig(record),
      dns: network?.dns ?? [],
      search: [],
      hosts: [
        { address: "127.0.0.1", names: ["localhost"] },
        { address: "::1", names: ["localhost", "ip6-localhost"] },
        { address: network?.ipv4?.split("/")[0] ?? "127.0.1.1", names: [hostname] },
      ],
    },
  };
}

/** What the guest mounts of the host's directories. */
function sharesConfig(record: VmRecord): Partial<GuestConfig> {
  const { defaults, image } = record;
  const served = servedOf(record);
  if (served.length === 0) return {};
  const shares = served.map(({ target, readonly, file }) => ({
    target,
    readOnly: readonly,
    ...(file && { file }),
  }));
  return { shares, sharesUser: defaults.user ?? image?.config.user ?? "" };
}

/** VMs whose network is there though their start has not asked for it yet. */
const attached = new WeakSet<VmRecord>();

/**
 * Make the VM's network while something else is done for it: its start finds it. Not one with published ports: these would
 * listen for a guest that is not there, for as long as its image takes to come.
 */
export async function attachAhead(record: VmRecord, stages: Stages, work: Work): Promise<void> {
  if (record.ports.length > 0) return;
  await attachNetwork(record, stages, work);
  attached.add(record);
}

/** Make the VM's network, unless it is to have none or has it from {@link attachAhead}. */
export async function attachNetwork(record: VmRecord, stages: Stages, work: Work): Promise<void> {
  if (record.policy.mode === "none" || attached.delete(record)) return;
  work.progress({ phase: "network" });
  const { id, networks = [], policy, ports, spec } = record;
  const network = await asPhase(
    "network",
    async () => await stages.networks.attach(id, policy, ports, work.signal, networks),
  );
  if (network.attachment !== undefined) spec.network = network.attachment;
  if (network.guest !== undefined) record.guestNetwork = network.guest;
  if (network.reason !== undefined) record.networkReason = network.reason;
}

/**
 * Wait until a VM may use a processor for its start. Only where it is emulated: elsewhere it needs next to none.
 * @returns to be called once it is up, or is not to be
 */
export async function awaitTurn(record: VmRecord, stages: Stages, work: Work): Promise<() => void> {
  if (record.accelerator !== "tcg") return () => undefined;
  return await stages.admission.enter(work.signal, record.project, (before) =>
    work.progress({ phase: "queue", message: `${before} before it` }),
  );
}

/**
 * How long the phases of a VM's start take: the function notes one in the record's timings, in
 * milliseconds since `from`, and gives the time at which the next one begins.
 */
export function lapsOf(record: VmRecord): (phase: string, from: number) => number {
  return (phase, from) => {
    const now = performance.now();
    record.timings[phase] = Math.round(now - from);
    if (!PARTED.has(phase)) notePhase(phase, from, now);
    return now;
  };
}

/** Phases of the record whose parts are noted instead. */
const PARTED = new Set(["prepare", "network", "boot", "start"]);

/**
 * Note who has had the time until now, at which the agent has given its first answer after a boot.
 * @param from when the VMM was called @param started when it ran @param uptimeMs of the agent
 */
function noteBoot(from: number, started: number, uptimeMs: number): void {
  const now = performance.now();
  const agent = Math.max(started, now - uptimeMs);
  notePhase("VMM", from, started);
  notePhase("kernel", started, agent, "guest");
  notePhase("agent", agent, now, "guest");
}

/** How long the agent's first answer may take after the VMM's start: the VM's own limit, the caller's, or the usual one. */
export function answerLimitMs(record: VmRecord, stages: Stages, work: Work): number {
  return record.bootTimeoutMs ?? work.host?.bootTimeoutMs ?? stages.bootLimitMs(record.accelerator);
}

/**
 * Start a VM's VMM and wait for its agent; configure the guest. The record is filled in and
 * saved through `save` as soon as something exists that a later daemon would have to find.
 * On failure nothing of it is left.
 * @param findMachine a booted machine to start from; where there is none, or it fails, the VM boots
 */
export async function bringUp(
  record: VmRecord,
  token: string,
  stages: Stages,
  work: Work,
  save: () => Promise<void>,
  findMachine?: FindMachine,
): Promise<LiveGuest> {
  const driver = stages.driver(record.driver);
  const limitMs = answerLimitMs(record, stages, work);
  let guest: LiveGuest | undefined;
  let leave: (() => void) | undefined;
  const since = performance.now();
  const lap = lapsOf(record);
  try {
    let at = since;
    await attachNetwork(record, stages, work);
    at = lap("network", at);
    leave = await awaitTurn(record, stages, work);
    at = lap("queue", at);
    work.progress({ phase: "boot", message: `${record.driver} (${record.accelerator})` });
    let machine = await findMachine?.(record);
    const found = performance.now();
    notePhase("find", at, found);
    let forget: (() => Promise<void>) | undefined;
    for (let attempt = 1; ; attempt += 1) {
      try {
        const consoleFrom = await consoleLength(driver.consolePath(record.spec));
        const called = performance.now();
        const running =
          machine === undefined
            ? await driver.start(record.spec, work.signal)
            : await driver.restore(record.spec, machine.files, work.signal);
        record.process = running.process;
        record.isolation = running.isolation;
        guest = { running, channel: stages.openChannel(running, token), consoleFrom };
        const started = performance.now();
        await save();
        const until = performance.now() + limitMs;
        if (machine !== undefined) {
          at = lap("load", found);
          await running.resume();
          const limit = AbortSignal.any([work.signal, AbortSignal.timeout(limitMs)]);
          await letGo((signal) => running.connect(signal), limit);
        }
        const leftMs = Math.max(1, Math.round(until - performance.now()));
        const uptimeMs = await awaitAgent(record, driver, guest, leftMs, work.signal);
        if (machine === undefined) noteBoot(called, started, uptimeMs);
        else notePhase("answer", at);
        break;
      } catch (error) {
        work.signal.throwIfAborted();
        if (machine === undefined && attempt >= attemptsFor(error)) throw error;
        const why = machine === undefined ? "the guest did not come up" : messageOf(error);
        work.progress({ phase: "boot", message: `${why}; trying again` });
        const failed = machine;
        if (failed !== undefined) forget = async () => await failed.drop(error);
        machine = undefined;
        delete record.timings["load"];
        guest?.channel.close();
        await guest?.running.kill();
        guest = undefined;
        await driver.cleanup(record.spec);
      }
    }
    // A guest that does not come up by booting either says nothing against the machine, which is everybody's.
    await forget?.();
    at = lap("boot", at);
    const { running, channel } = guest;
    const config = guestConfig(record);
    await awaitConfigured(
      record,
      driver,
      guest,
      { config, limitMs, signal: work.signal },
      async (signal) => {
        await stages.shares.serve(record, running, token);
        await channel.configure(config, signal);
      },
    );
    lap("configure", at);
    lap("start", since);
    return guest;
  } catch (error) {
    await tearDown(record, stages, guest);
    work.signal.throwIfAborted();
    throw asVmsanError(error, `Cannot start ${record.id}`, "ERR_VM_START");
  } finally {
    leave?.();
  }
}

/**
 * Kill whatever runs of a VM and remove what it used outside its directory.
 * Never throws: what could not be cleaned is returned.
 */
export async function tearDown(
  record: VmRecord,
  stages: Stages,
  guest: LiveGuest | undefined,
): Promise<{ what: string; why: string }[]> {
  const failed: { what: string; why: string }[] = [];
  const attempt = async (what: string, body: () => Promise<unknown>): Promise<void> => {
    try {
      await asPhase(what, body);
    } catch (error) {
      failed.push({ what, why: asVmsanError(error, what).why ?? String(error) });
    }
  };
  const driver = stages.driver(record.driver);
  await attempt("close the guest channel", async () => guest?.channel.close());
  await attempt("end the VMM", async () => {
    if (guest !== undefined) return guest.running.kill();
    if (record.process === undefined) return undefined;
    return (await driver.adopt(record.spec, record.process))?.kill();
  });
  // Nothing of these has to do with another one, and whoever removes the VM waits for all.
  await Promise.all([
    attempt("clean up after the driver", async () => {
      failed.push(...(await driver.cleanup(record.spec)).failed);
    }),
    attempt("end its file server", () => stages.shares.end(record)),
    attempt("remove the network", async () => {
      failed.push(...(await stages.networks.detach(record.id)).failed);
    }),
  ]);
  attached.delete(record);
  delete record.process;
  delete record.spec.network;
  delete record.guestNetwork;
  delete record.networkReason;
  delete record.placing;
  return failed;
}
