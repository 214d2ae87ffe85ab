/**
 * Snapshots with QEMU: memory is copied from the guest's shared memory as it lies, everything
 * else is a migration stream of some 70 KB. A restored VM maps the memory file privately, so
 * that many clones share its pages. A clone has no shared memory: its own snapshot carries the
 * memory in the stream, and its memory file is empty.
 */
import { createWriteStream } from "node:fs";
import { chmod, open, readdir, readlink, rm, stat, writeFile } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { VmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import { runOk } from "../../util/run.ts";
import { listenUnix } from "../../util/socket-path.ts";
import type { SnapshotFiles } from "../driver.ts";
import { qemuFiles, type QemuRestore } from "./command.ts";
import type { Qmp } from "./qmp.ts";

/** Milliseconds that a migration may take: 32 GiB at 300 MB/s. */
const migrationTimeoutMs = 120_000;

/** A failed snapshot or restore. */
function snapshotError(action: string, why: string, cause?: unknown): VmsanError {
  return new VmsanError(
    {
      code: "ERR_VMM_SNAPSHOT",
      message: `Cannot ${action}`,
      why,
      fix: "Check the free disk space, and that the snapshot was made by the same QEMU version.",
    },
    cause,
  );
}

/** Path of the guest's shared memory in /proc; undefined when it has none or we may not look. */
async function sharedMemory(pid: number): Promise<string | undefined> {
  const dir = `/proc/${pid}/fd`;
  try {
    for (const name of await readdir(dir)) {
      const target = await readlink(join(dir, name)).catch(() => "");
      if (target.startsWith("/memfd:memory-backend-memfd")) {
        // Opened for a test: a link may be readable where its file is not.
        const handle = await open(join(dir, name), "r");
        await handle.close();
        return join(dir, name);
      }
    }
  } catch (error) {
    // Without CAP_SYS_PTRACE (in a container) the files of another user are closed to us.
    if (!["EACCES", "EPERM"].includes(errnoOf(error) ?? "")) throw error;
  }
  return undefined;
}

/** Wait until a migration has ended. */
async function migrated(monitor: Qmp, action: string): Promise<void> {
  const deadline = Date.now() + migrationTimeoutMs;
  for (let wait = 2; Date.now() < deadline; wait = Math.min(wait * 1.5, 50)) {
    const reply = await monitor.execute("query-migrate");
    const state = typeof reply === "object" && reply !== null ? reply : {};
    const status = "status" in state ? state.status : undefined;
    if (status === "completed") return;
    if (status === "failed" || status === "cancelled") {
      const why = "error-desc" in state ? String(state["error-desc"]) : `it has ${status}`;
      throw snapshotError(action, why);
    }
    await sleep(wait);
  }
  throw snapshotError(action, `It took longer than ${migrationTimeoutMs} ms.`);
}

/** Have memory left out of migration streams, or not. */
async function ignoreShared(monitor: Qmp, on: boolean): Promise<void> {
  await monitor.execute("migrate-set-capabilities", {
    capabilities: [{ capability: "x-ignore-shared", state: on }],
  });
}

/** Listen where QEMU can connect to, and write what comes to `state`. */
async function receiveState(
  socketDir: string,
  state: string,
  send: (uri: string) => Promise<void>,
): Promise<void> {
  const path = join(socketDir, qemuFiles.migration);
  await rm(path, { force: true });
  const server = createServer();
  try {
    const accepted = new Promise<Socket>((resolve, reject) => {
      server.once("connection", resolve);
      server.once("error", reject);
    });
    await listenUnix(server, path);
    // QEMU runs as another user; the directory above is closed to everybody else.
    await chmod(path, 0o666);
    const written = accepted.then(async (socket) => {
      await pipeline(socket, createWriteStream(state, { flags: "wx", mode: 0o600, flush: true }));
    });
    // Both are awaited; a failure of the second must not go unhandled while the first runs.
    written.catch(() => undefined);
    await send(`unix:${qemuFiles.migration}`);
    await written;
  } finally {
    server.close();
    await rm(path, { force: true });
  }
}

/**
 * Write the snapshot of a paused VM.
 * @param socketDir directory that QEMU sees as its working directory
 */
export async function createState(
  monitor: Qmp,
  pid: number,
  socketDir: string,
  files: SnapshotFiles,
): Promise<void> {
  const action = `write the snapshot ${files.state}`;
  const status = await monitor.execute("query-status");
  const running = typeof status === "object" && status !== null && "running" in status;
  if (running && status.running === true) throw snapshotError(action, "The VM is not paused.");
  const memory = await sharedMemory(pid);
  try {
    await ignoreShared(monitor, memory !== undefined);
    await receiveState(socketDir, files.state, async (uri) => {
      await monitor.execute("migrate", { uri });
      await migrated(monitor, action);
    });
    if (memory === undefined) await writeFile(files.memory, "", { flag: "wx", mode: 0o600 });
    else {
      const args = ["--sparse=always", "--", memory, files.memory];
      await runOk("cp", args, "ERR_VMM_SNAPSHOT");
      await chmod(files.memory, 0o600);
    }
  } catch (error) {
    for (const path of [files.state, files.memory]) await rm(path, { force: true });
    if (error instanceof VmsanError) throw error;
    throw snapshotError(action, messageOf(error), error);
  }
}

/** Whether a snapshot has a memory file of its own. */
export async function memoryOf(files: SnapshotFiles): Promise<QemuRestore> {
  try {
    const { size } = await stat(files.memory);
    return size === 0 ? {} : { memory: files.memory };
  } catch (error) {
    throw snapshotError(`restore ${files.state}`, messageOf(error), error);
  }
}

/** An opened snapshot state, on its way into a QEMU. */
export interface OpenState {
  /** Descriptors for the new process; the first becomes its descriptor 3. */
  descriptors: number[];
  /** Its machine has a balloon. */
  balloon: boolean;
  /** Load it; the VM is paused afterwards. */
  load(monitor: Qmp, memoryApart: boolean): Promise<void>;
  close(): Promise<void>;
}

/** Bytes at a state's end in which all its devices are: memory, if it is in there, comes before them. */
const DEVICES_BYTES = 1 << 20;

/** Whether a state is of a machine with a balloon; its position stays where it is. */
async function hasBalloon(handle: FileHandle): Promise<boolean> {
  const { size } = await handle.stat();
  const tail = Buffer.alloc(Math.min(size, DEVICES_BYTES));
  await handle.read(tail, 0, tail.length, size - tail.length);
  return tail.includes("virtio-balloon");
}

/**
 * Memory for a machine with a balloon, by which its guest can make holes in the file that it is mapped from: a copy of its
 * own, of which no other file is left once it is open.
 * @param to absolute path of the copy
 */
export async function withBalloon({ memory }: QemuRestore, to: string): Promise<QemuRestore> {
  if (memory === undefined) return { balloon: true };
  await rm(to, { force: true });
  await runOk("cp", ["--reflink=auto", "--sparse=always", "--", memory, to], "ERR_VMM_SNAPSHOT");
  await chmod(to, 0o600);
  return { memory: to, balloon: true };
}

/** Open a snapshot's state for a new QEMU process, which reads it as descriptor 3. */
export async function loadState(files: SnapshotFiles): Promise<OpenState> {
  const action = `restore ${files.state}`;
  const handle = await open(files.state, "r").catch((error: unknown) => {
    throw snapshotError(action, messageOf(error), error);
  });
  return {
    descriptors: [handle.fd],
    balloon: await hasBalloon(handle),
    load: async (monitor, memoryApart) => {
      await ignoreShared(monitor, memoryApart);
      await monitor.execute("migrate-incoming", { uri: "fd:3" });
      await migrated(monitor, action);
    },
    close: async () => await handle.close(),
  };
}
