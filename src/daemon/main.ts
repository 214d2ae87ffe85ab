/** The daemon's process: takes the lock, finds its VMs, serves until it is told to stop. */
import { once } from "node:events";
import { closeSync, writeSync } from "node:fs";
import { flushCompileCache } from "node:module";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { StartReport } from "../model/api.ts";
import { VmsanError, asVmsanError } from "../model/errors.ts";
import { EventJournal } from "../sandbox/records/event-journal.ts";
import { EVENTS_KEPT, Events } from "../sandbox/records/events.ts";
import { tellUntold } from "../sandbox/records/untold-events.ts";
import { VmRecords } from "../sandbox/records/records.ts";
import { Sandboxes } from "../sandbox/sandboxes.ts";
import { createHost } from "../sandbox/host.ts";
import { FullDiskWatch } from "../sandbox/full-disk.ts";
import { IdleWatch } from "../sandbox/snapshots/idle.ts";
import { Snapshots } from "../sandbox/snapshots/snapshots.ts";
import { PrivateNetworks } from "../sandbox/private-networks.ts";
import { Volumes } from "../sandbox/volumes.ts";
import { Templates } from "../sandbox/warm/templates.ts";
import { tryLock } from "../util/lock.ts";
import type { Lock } from "../util/lock.ts";
import { makeDirectory } from "../util/files/directory.ts";
import { layoutOf, vmsanDir } from "../util/paths.ts";
import type { Layout } from "../util/paths.ts";
import { socketPath } from "../util/socket-path.ts";
import { buildRoutes } from "./build-routes.ts";
import { commitRoutes } from "./commit-routes.ts";
import { eventRoutes } from "./event-routes.ts";
import { doctorRoutes } from "./doctor-routes.ts";
import { imageRoutes } from "./image-routes.ts";
import { kernelRoutes } from "./kernel-routes.ts";
import { metricRoutes } from "./metrics.ts";
import { networkRoutes } from "./network-routes.ts";
import { privateNetworkRoutes } from "./private-network-routes.ts";
import { snapshotRoutes } from "./snapshot-routes.ts";
import { sshRoutes } from "./ssh-routes.ts";
import { statsRoutes } from "./stats-routes.ts";
import { volumeRoutes } from "./volume-routes.ts";
import { fileLog } from "../util/log.ts";
import { serve } from "./server.ts";

const IDLE_LIMIT_MS = 15 * 60_000;
const IDLE_CHECK_MS = 30_000;
const STATUS_FD = 3;
const TAKE_OVER_LIMIT_MS = 15_000;

/** Tell the process that started this one how it went; it may be gone, or never have listened. */
function report(status: StartReport): void {
  try {
    writeSync(STATUS_FD, `${JSON.stringify(status)}\n`);
    closeSync(STATUS_FD);
  } catch {
    // EBADF or EPIPE: nobody listens (started by hand, or the starter is gone).
  }
}

/** Whether a daemon answers on the socket. */
async function answers(socket: string): Promise<boolean> {
  const address = socketPath(socket);
  const connection = connect(address.path);
  try {
    await once(connection, "connect");
    return true;
  } catch {
    // ENOENT, ECONNREFUSED: nobody listens yet, or any more.
    return false;
  } finally {
    connection.destroy();
    address[Symbol.dispose]();
  }
}

/**
 * The lock of this directory's daemon; undefined when another one, started at the same
 * moment, serves. One that is about to end (an upgrade) is waited for.
 * @throws ERR_DAEMON_START when the holder neither ends nor answers
 */
async function takeOver(layout: Layout): Promise<Lock | undefined> {
  const deadline = Date.now() + TAKE_OVER_LIMIT_MS;
  for (;;) {
    const held = tryLock(layout.daemonLock);
    if (held !== undefined) return held;
    if (await answers(layout.socket)) return undefined;
    if (Date.now() > deadline) {
      throw new VmsanError({
        code: "ERR_DAEMON_START",
        message: "The daemon cannot start",
        why: "Another daemon holds this directory but does not answer.",
        fix: `End that process: fuser ${layout.daemonLock} names it.`,
      });
    }
    await sleep(50);
  }
}

async function main(): Promise<void> {
  // For this program's modules, not for programs that it starts.
  delete process.env["NODE_COMPILE_CACHE"];
  const layout = layoutOf(vmsanDir());
  makeDirectory(layout.root);
  makeDirectory(layout.run);
  // It is looked at before the first VM is made, too.
  makeDirectory(layout.vms);
  const log = fileLog(layout.daemonLog);
  const held = await takeOver(layout);
  if (held === undefined) {
    report({ ready: true });
    process.exit(0);
  }
  const journal = new EventJournal(layout.eventJournal, EVENTS_KEPT, log);
  const events = new Events(journal);
  const host = await createHost(layout, log, events);
  const sandboxes = new Sandboxes(new VmRecords(layout.vms), host.stages, log, events);
  const snapshots = new Snapshots(sandboxes, layout.snapshots);
  await snapshots.recover();
  const templates = new Templates(sandboxes, layout.templates);
  await templates.recover();
  await sandboxes.recover();
  tellUntold(events, sandboxes.entries);
  const idle = new IdleWatch(sandboxes);
  const fullDisk = new FullDiskWatch(sandboxes, layout.vms);

  let stopping = false;
  const stop = async (why: string): Promise<void> => {
    if (stopping) return;
    stopping = true;
    log.info(`stopping: ${why}`);
    idle.close();
    fullDisk.close();
    await server.close();
    await templates.close();
    await sandboxes.letGo();
    await host.close();
    held.release();
    process.exit(0);
  };
  const server = await serve(
    {
      sandboxes,
      sleep: snapshots.sleep,
      log,
      root: layout.root,
      extend: (app) => {
        doctorRoutes(app, layout);
        imageRoutes(app, host, sandboxes);
        commitRoutes(app, host, sandboxes, snapshots);
        eventRoutes(app, host, sandboxes);
        statsRoutes(app, sandboxes);
        metricRoutes(app, host, sandboxes);
        buildRoutes(app, host, sandboxes, snapshots.sleep);
        kernelRoutes(app, host, sandboxes);
        networkRoutes(app, host, sandboxes);
        snapshotRoutes(app, sandboxes, snapshots);
        sshRoutes(app, sandboxes, snapshots.sleep);
        volumeRoutes(app, new Volumes(sandboxes));
        privateNetworkRoutes(app, new PrivateNetworks(sandboxes));
      },
      shutdown: () => void stop("asked to"),
    },
    layout.socket,
  );
  process.on("SIGTERM", () => void stop("SIGTERM"));
  process.on("SIGINT", () => void stop("SIGINT"));
  // A terminal that closes takes its commands along, not the VMs.
  process.on("SIGHUP", () => undefined);
  process.on("unhandledRejection", (error) => log.error("unhandled rejection", error));
  process.on("uncaughtException", (error) => log.error("uncaught exception", error));
  log.info(`serving ${layout.root} (pid ${process.pid})`);
  report({ ready: true });
  // Now rather than at the end, which may be a SIGKILL.
  flushCompileCache();

  for (;;) {
    await sleep(IDLE_CHECK_MS);
    if (!sandboxes.active && server.idleMs() > IDLE_LIMIT_MS) await stop("idle");
  }
}

main().catch((error: unknown) => {
  const known = asVmsanError(
    error,
    "The daemon cannot start",
    "ERR_DAEMON_START",
    `Put that right, or name another directory with VMSAN_DIR; ${layoutOf(vmsanDir()).daemonLog} may say more.`,
  );
  report({ ready: false, error: known.toJSON() });
  process.stderr.write(`${new Date().toISOString()} error ${known.message}: ${known.why ?? ""}\n`);
  process.exit(1);
});
