/** A daemon for tests of its clients: VMs of the fake driver, no images, no network of their own. */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Host } from "../sandbox/host.ts";
import type { HostNetworks } from "../sandbox/networks.ts";
import { EventJournal } from "../sandbox/records/event-journal.ts";
import { EVENTS_KEPT, Events } from "../sandbox/records/events.ts";
import { tellUntold } from "../sandbox/records/untold-events.ts";
import { VmRecords } from "../sandbox/records/records.ts";
import { Sandboxes } from "../sandbox/sandboxes.ts";
import { Snapshots } from "../sandbox/snapshots/snapshots.ts";
import type { Stages } from "../sandbox/stages.ts";
import { fakeStages, quietLog } from "../sandbox/testing.ts";
import { Volumes } from "../sandbox/volumes.ts";
import { tryLock } from "../util/lock.ts";
import { layoutOf } from "../util/paths.ts";
import { Ring } from "../util/flow/ring.ts";
import { eventRoutes } from "./event-routes.ts";
import { metricRoutes } from "./metrics.ts";
import { networkRoutes } from "./network-routes.ts";
import { serve } from "./server.ts";
import type { Listening } from "./server.ts";
import { snapshotRoutes } from "./snapshot-routes.ts";
import { statsRoutes } from "./stats-routes.ts";
import { volumeRoutes } from "./volume-routes.ts";

type NetworkDecision = ReturnType<HostNetworks["decisions"]>[number];

/** A daemon that clients find by VMSAN_DIR. */
export interface FakeDaemon {
  /** VMSAN_DIR. */
  dir: string;
  sandboxes: Sandboxes;
  /** Have a VM's network policy decide something. */
  decide(vmId: string, decision: Omit<NetworkDecision, "seq" | "time">): void;
  /** End it and start the next one, as after a crash; VMs go on. @param between done while there is none */
  restart(between?: () => Promise<void>): Promise<void>;
  /** Remove its VMs, end it, leave nothing. */
  close(): Promise<void>;
}

/** Start one. @param changes other stages than those of the fake host */
export async function fakeDaemon(changes: Partial<Stages> = {}): Promise<FakeDaemon> {
  const dir = await mkdtemp(join(tmpdir(), "vmsan-fake-"));
  const layout = layoutOf(dir);
  await mkdir(layout.run, { recursive: true, mode: 0o700 });
  // As a daemon's own: who starts one while this one is between two lives waits for the next.
  const lock = tryLock(layout.daemonLock);
  const rings = new Map<string, Ring<Omit<NetworkDecision, "seq" | "time">>>();
  const ringOf = (vmId: string): Ring<Omit<NetworkDecision, "seq" | "time">> => {
    const ring = rings.get(vmId) ?? new Ring(100);
    rings.set(vmId, ring);
    return ring;
  };
  let deciding: ((vmId: string, decision: NetworkDecision) => void)[] = [];
  const networks = {
    decisions: (vmId: string) => ringOf(vmId).since(0),
    follow: (vmId: string, signal: AbortSignal) => ringOf(vmId).follow(signal),
    onDecision: (call: (typeof deciding)[number]) => void deciding.push(call),
  };
  const host = { networks } as unknown as Host;
  let journal: EventJournal | undefined;
  const start = async (): Promise<{ sandboxes: Sandboxes; server: Listening }> => {
    deciding = [];
    journal = new EventJournal(layout.eventJournal, EVENTS_KEPT, quietLog);
    const events = new Events(journal);
    const sandboxes = new Sandboxes(
      new VmRecords(layout.vms),
      fakeStages(dir, changes),
      quietLog,
      events,
    );
    const snapshots = new Snapshots(sandboxes, layout.snapshots);
    await snapshots.recover();
    await sandboxes.recover();
    tellUntold(events, sandboxes.entries);
    const server = await serve(
      {
        sandboxes,
        sleep: snapshots.sleep,
        log: quietLog,
        root: dir,
        shutdown: () => undefined,
        extend: (app) => {
          eventRoutes(app, host, sandboxes);
          statsRoutes(app, sandboxes);
          metricRoutes(app, host, sandboxes);
          networkRoutes(app, host, sandboxes);
          snapshotRoutes(app, sandboxes, snapshots);
          volumeRoutes(app, new Volumes(sandboxes));
        },
      },
      layout.socket,
    );
    return { sandboxes, server };
  };
  let { sandboxes, server } = await start();
  return {
    dir,
    get sandboxes() {
      return sandboxes;
    },
    decide: (vmId, decision) => {
      const line = ringOf(vmId).add(decision);
      for (const call of deciding) call(vmId, line);
    },
    restart: async (between) => {
      await server.close();
      await sandboxes.letGo();
      journal?.close();
      await between?.();
      ({ sandboxes, server } = await start());
    },
    close: async () => {
      await server.close();
      for (const { id } of sandboxes.list()) await sandboxes.remove(id, true);
      journal?.close();
      lock?.release();
      await rm(dir, { recursive: true, force: true });
    },
  };
}
