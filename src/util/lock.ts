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

/** Wait for the lock. */
export async function lock(path: string, options: LockOptions = {}): Promise<Lock> {
  const deadline = Date.now() + (options.timeoutMs ?? 600_000);
  for (let wait = 5; ; wait = Math.min(wait * 2, 100)) {
    options.signal?.throwIfAborted();
    const held = tryLock(path);
    if (held !== undefined) return held;
    if (Date.now() > deadline) {
      throw new VmsanError({
        code: "ERR_TIMEOUT_LOCK",
        message: `Cannot lock ${path}`,
        why: "Another process has held it for longer than the time limit.",
        fix: `See who has it open (fuser ${path}) and end that process.`,
      });
    }
    await sleep(wait, undefined, options.signal === undefined ? {} : { signal: options.signal });
  }
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
