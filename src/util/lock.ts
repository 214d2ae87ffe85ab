/**
 * Locks among processes that the kernel releases when their holder dies.
 *
 * Node has no flock(2); SQLite takes fcntl(2) locks on its database file and is built in,
 * so a lock here is an open exclusive transaction on an empty database.
 */
import { mkdirSync, truncateSync } from "node:fs";
import { dirname } from "node:path";
import type * as Sqlite from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { VmsanError, messageOf } from "../model/errors.ts";
import { Slots } from "./flow/slots.ts";

/** Load node:sqlite without its "experimental" warning, which would land on users' terminals. */
function loadSqlite(): typeof Sqlite {
  const emit = Object.getOwnPropertyDescriptor(process, "emitWarning");
  process.emitWarning = () => undefined;
  try {
    return process.getBuiltinModule("node:sqlite");
  } finally {
    if (emit !== undefined) Object.defineProperty(process, "emitWarning", emit);
  }
}

/** Take the lock, or throw at once. */
function begin(database: Sqlite.DatabaseSync): void {
  database.exec("PRAGMA busy_timeout = 0; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
}

/** A held lock; release it once. */
export interface Lock {
  release(): void;
}

/**
 * Take the lock if nobody has it.
 * @param path lock file, made if missing, never removed
 */
export function tryLock(path: string): Lock | undefined {
  mkdirSync(dirname(path), { recursive: true });
  const { DatabaseSync } = loadSqlite();
  const database = new DatabaseSync(path);
  try {
    try {
      begin(database);
    } catch (error) {
      if (!/not a database|malformed/i.test(messageOf(error))) throw error;
      // Nothing is kept in it. Emptied in place, so that whoever holds this file's lock keeps it.
      truncateSync(path);
      begin(database);
    }
  } catch (error) {
    database.close();
    if (/locked|busy/i.test(messageOf(error))) return undefined;
    throw new VmsanError(
      {
        code: "ERR_LOCK_FILE",
        message: `Cannot lock ${path}`,
        why: messageOf(error),
        fix: "Check that the directory is writable and the disk is not full.",
      },
      error,
    );
  }
  return { release: () => database.close() };
}

/** What {@link lock} may be told. */
export interface LockOptions {
  signal?: AbortSignal;
  /** Milliseconds to wait before ERR_TIMEOUT_LOCK; default 10 minutes. */
  timeoutMs?: number;
}

/** The error for a lock that was not to be had in time. */
function notInTime(path: string): VmsanError {
  return new VmsanError({
    code: "ERR_TIMEOUT_LOCK",
    message: `Cannot lock ${path}`,
    why: "Others have had it for longer than the time limit.",
    fix: `See who has it open (fuser ${path}) and end that process.`,
  });
}

/** Look again and again until no other process has the lock. @param deadline milliseconds since the epoch */
async function untilFree(path: string, deadline: number, signal?: AbortSignal): Promise<Lock> {
  for (let wait = 5; ; wait = Math.min(wait * 2, 100)) {
    signal?.throwIfAborted();
    const held = tryLock(path);
    if (held !== undefined) return held;
    if (Date.now() > deadline) throw notInTime(path);
    await sleep(wait, undefined, signal === undefined ? {} : { signal });
  }
}

/** Who of this process has a lock file or waits for it. */
const queues = new Map<string, { slots: Slots; users: number }>();

/**
 * Wait for the lock. Within a process it is given in the order of the calls, and only the first of those that wait looks
 * at the file: a hundred that did so would take all of the process's time.
 */
export async function lock(path: string, options: LockOptions = {}): Promise<Lock> {
  const { signal, timeoutMs = 600_000 } = options;
  const deadline = Date.now() + timeoutMs;
  const queue = queues.get(path) ?? { slots: new Slots(1), users: 0 };
  queues.set(path, queue);
  queue.users += 1;
  const giveUp = new AbortController();
  const late = setTimeout(() => giveUp.abort(notInTime(path)), timeoutMs);
  const abort = (): void => giveUp.abort(signal?.reason);
  if (signal?.aborted === true) abort();
  signal?.addEventListener("abort", abort, { once: true });
  const waitsNoMore = (): void => {
    clearTimeout(late);
    signal?.removeEventListener("abort", abort);
  };
  return await new Promise<Lock>((resolve, reject) => {
    const turn = queue.slots.run(async () => {
      waitsNoMore();
      const held = await untilFree(path, deadline, signal);
      await new Promise<void>((released) => {
        resolve({
          release: () => {
            held.release();
            released();
          },
        });
      });
    }, giveUp.signal);
    void turn.catch(reject).finally(() => {
      waitsNoMore();
      queue.users -= 1;
      if (queue.users === 0) queues.delete(path);
    });
  });
}

/** Run `body` while holding the lock. */
export async function withLock<T>(
  path: string,
  body: () => Promise<T>,
  options: LockOptions = {},
): Promise<T> {
  const held = await lock(path, options);
  try {
    return await body();
  } finally {
    held.release();
  }
}
