/**
 * Locks among processes that the kernel releases when their holder dies.
 *
 * Node has no flock(2); SQLite takes fcntl(2) locks on its database file and is built in,
 * so a lock here is an open exclusive transaction on an empty database.
 */
import { mkdirSync, statSync, truncateSync, utimesSync } from "node:fs";
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

/** Most milliseconds between two looks at a lock that another process has. */
const LOOK_MS = 50;

/** Milliseconds for which a process steps aside for another one that waits: it has looked by then. */
const ASIDE_MS = 2 * LOOK_MS;

/** Milliseconds for which a sign of waiting counts: it is renewed at each look, unless its process has died. */
const SIGN_MS = 500;

/** Signs are times that lie so many milliseconds ahead, an hour: that of a file that was just made is none. */
const AHEAD_MS = 3_600_000;

/**
 * Whether somebody waits: who does says so by the file's time of change, which needs no second file and wears off when
 * its process dies.
 */
function isWaitedFor(path: string): boolean {
  const changed = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  return Math.abs(Date.now() + AHEAD_MS - changed) < SIGN_MS;
}

/** Say that somebody waits, or no longer does. */
function sign(path: string, waits: boolean): void {
  const seconds = waits ? (Date.now() + AHEAD_MS) / 1000 : 1;
  try {
    utimesSync(path, seconds, seconds);
  } catch {
    // EPERM, ENOENT …: the file is another user's, or its holder removes it with its directory. No order is kept among the
    // processes then, and the lock is one all the same.
  }
}

/**
 * Look again and again until no other process has the lock. One that has had it steps aside once for a process that waits:
 * else the callers of one process could hand it to each other for as long as there are any.
 * @param deadline milliseconds since the epoch
 */
async function untilFree(path: string, deadline: number, signal?: AbortSignal): Promise<Lock> {
  const pause = async (ms: number): Promise<void> => {
    if (Date.now() > deadline) throw notInTime(path);
    await sleep(ms, undefined, signal === undefined ? {} : { signal });
  };
  signal?.throwIfAborted();
  if (isWaitedFor(path)) await pause(ASIDE_MS);
  let signed = false;
  try {
    for (let wait = 5; ; wait = Math.min(wait * 2, LOOK_MS)) {
      signal?.throwIfAborted();
      const held = tryLock(path);
      if (held !== undefined) return held;
      sign(path, true);
      signed = true;
      await pause(wait);
    }
  } finally {
    // Others that wait sign again at their next look.
    if (signed) sign(path, false);
  }
}

/** Who of this process has a lock file or waits for it. */
const queues = new Map<string, { slots: Slots; users: number }>();

/**
 * Wait for the lock. Within a process it is given in the order of the calls, and only the first of those that wait looks
 * at the file: a hundred that did so would take all of the process's time. Among processes none waits for more than one
 * turn of another, by and large.
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
