/** How the functions of this folder reach an agent: directly, or through the daemon. */
import { constants } from "node:os";
import type { Duplex } from "node:stream";
import { setImmediate } from "node:timers/promises";
import { VmsanError } from "../model/errors.ts";
import type { ErrorInfo } from "../model/errors.ts";

/** Opens raw frame streams; all that a {@link GuestStream} needs. */
export interface StreamOpener {
  /**
   * One POST whose request and reply bodies are frames.
   * @param path `/v1/streams` or `/v1/streams/ID`
   * @param signal gives up opening; an opened stream is destroyed by its user
   * @param patienceMs how long the caller waits: who waits for a VM that sleeps tells it before (ERR_AGENT_ASLEEP)
   */
  open(path: string, signal: AbortSignal, patienceMs?: number): Promise<Duplex>;
}

/** What a JSON call may carry. */
export interface RequestOptions {
  /** Sent as JSON. */
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  /**
   * Sent again when the connection breaks before the reply. Default: every method but POST.
   */
  idempotent?: boolean;
}

/** Everything that reaches an agent. */
export interface GuestTransport extends StreamOpener {
  /**
   * A JSON call. Gives the reply's value: an array for application/x-ndjson, undefined for 204.
   * @throws the agent's own error, or ERR_AGENT_UNREACHABLE
   */
  request<T>(method: string, path: string, options?: RequestOptions): Promise<T>;
}

/** Longest reply of a call that no line below is for, in bytes; and of every one that says what failed. */
const SMALL_REPLY = 256 << 10;

/** Longest replies of those that hold more, in bytes, by their paths. */
const LONG_REPLIES: readonly (readonly [path: RegExp, bytes: number])[] = [
  [/^\/v1\/fs\/list$/, 64 << 20],
  [/^\/v1\/(?:streams|processes)$/, 16 << 20],
  // A command's arguments are as long as START lets them be.
  [/^\/v1\/streams\/[0-9a-f]{16}(?:\/wait)?$/, 16 << 20],
  // A small file's content, or an entry's attributes.
  [/^\/v1\/fs\/(?:read|stat)$/, 4 << 20],
];

/** Longest reply of a call, in bytes. */
export function longestReply(path: string, status: number): number {
  if (status >= 400) return SMALL_REPLY;
  return LONG_REPLIES.find(([pattern]) => pattern.test(path))?.[1] ?? SMALL_REPLY;
}

/** The error for a reply that is longer. */
export function tooLongReply(bytes: number): VmsanError {
  return new VmsanError({
    code: "ERR_AGENT_PROTOCOL",
    message: "The guest's agent sent a reply that is too long",
    why: `It has more than ${bytes} bytes.`,
    fix: "Restart the VM, so that its agent is of this vmsan's version.",
  });
}

/** Longest value of one, and longest line of one that is a list, in bytes: reading it holds everybody up. */
const MAX_VALUE = 16 << 20;
const MAX_LINE = 4 << 20;
/** How much of a list is read at one go, in bytes. */
const PIECE = 1 << 20;

/** Most lines of one that is a list: an honest one of that length has fewer, and forged ones would be gigabytes once they are read. */
const MAX_LINES = 400_000;

/** Replies up to that length make no objects to speak of, whatever is in them. */
const FREE_BYTES = 1 << 20;
/** Fewest bytes of longer ones for each object or list in them: honest ones have many more, and forged ones would be gigabytes once they are read. */
const BYTES_EACH = 32;

const CODE = /^ERR_[A-Z0-9_]{1,60}$/;

/** Text of an untrusted guest, bounded. */
function boundedText(value: unknown, limit = 4096): string | undefined {
  return typeof value === "string" && value !== "" ? value.slice(0, limit) : undefined;
}

/** What to do about errors that the agent, which does not know this command line, gives no advice for. */
const FIXES: Record<string, string> = {
  ERR_AGENT_FILE:
    "Check the path, and that the user may use it (-u); `vmsan exec VM ls -la` shows.",
  ERR_AGENT_USER: "Name a user of the guest's /etc/passwd, or a number.",
  ERR_AGENT_DIAL: "Check that something listens there: `vmsan exec VM ss -ltn`.",
  ERR_AGENT_STREAM_NOT_FOUND: "See `vmsan ps VM` for the commands of a VM.",
  ERR_AGENT_STREAM_ENDED: "See `vmsan ps VM` for the commands of a VM.",
};

/** An error reported by the agent, checked: the guest is not trusted. */
export function agentError(value: unknown, action: string): VmsanError {
  const given = (typeof value === "object" && value !== null ? value : {}) as Record<
    string,
    unknown
  >;
  const code = boundedText(given["code"], 64);
  const why = boundedText(given["why"]);
  const known = code !== undefined && CODE.test(code) ? code : "ERR_AGENT_FAILED";
  const fix =
    boundedText(given["fix"]) ?? FIXES[known] ?? "See the guest's console: vmsan logs VM.";
  const errno = errnoName(given["errno"]);
  const info: ErrorInfo = {
    code: known,
    message: boundedText(given["message"]) ?? action,
    ...(why === undefined ? {} : { why }),
    fix,
    ...(errno === undefined ? {} : { details: { errno } }),
  };
  return new VmsanError(info);
}

/** `ENOENT` … of a Linux error number that the agent sent. */
function errnoName(value: unknown): string | undefined {
  if (typeof value !== "number") return undefined;
  return Object.entries(constants.errno).find(([, number]) => number === value)?.[0];
}

/** `ENOENT` … when the guest's kernel refused something; undefined for other errors. */
export function guestErrno(error: unknown): string | undefined {
  const errno = error instanceof VmsanError ? error.details?.["errno"] : undefined;
  return typeof errno === "string" ? errno : undefined;
}

/** Refuse a text that would be objects and little else. @throws RangeError */
function checkObjects(text: string): void {
  if (text.length <= FREE_BYTES) return;
  const most = text.length / BYTES_EACH;
  let count = 0;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === 0x5b || code === 0x7b) {
      count += 1;
      if (count > most) throw new RangeError(`an object or list in less than ${BYTES_EACH} bytes`);
    } else if (code === 0x22) {
      at = endOfString(text, at);
    }
  }
}

/** Where a string ends that begins at a place. */
function endOfString(text: string, start: number): number {
  for (let at = text.indexOf('"', start + 1); at !== -1; at = text.indexOf('"', at + 1)) {
    let slashes = 0;
    while (text.charCodeAt(at - 1 - slashes) === 0x5c) slashes += 1;
    if (slashes % 2 === 0) return at;
  }
  return text.length;
}

/** A value, after its text was looked at. @throws RangeError, SyntaxError */
function parseValue(text: string): unknown {
  if (text.length > MAX_VALUE) throw new RangeError(`a value of more than ${MAX_VALUE} bytes`);
  checkObjects(text);
  return JSON.parse(text);
}

/** Some lines of a list. @throws RangeError for too many, before they are made @param most how many are left */
function parseLines(text: string, most: number): unknown[] {
  let count = 0;
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) {
    count += 1;
    if (count > most) throw new RangeError(`more than ${MAX_LINES} lines`);
  }
  checkObjects(text);
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.map((line): unknown => JSON.parse(line));
}

/** The values of a list, read bit by bit: the daemon is everybody's, and has other things to do meanwhile. */
async function parseList(text: string): Promise<unknown[]> {
  const values: unknown[][] = [];
  let left = MAX_LINES;
  for (let at = 0; at < text.length;) {
    const newline = text.indexOf("\n", at + PIECE);
    const end = newline === -1 ? text.length : newline + 1;
    if (end - at > PIECE + MAX_LINE) throw new RangeError(`a line of more than ${MAX_LINE} bytes`);
    const some = parseLines(text.slice(at, end), left);
    values.push(some);
    left -= some.length;
    at = end;
    if (at < text.length) await setImmediate();
  }
  return values.flat(1);
}

/** The value of a reply's body. */
export async function parseReply(contentType: string, text: string): Promise<unknown> {
  if (text === "") return undefined;
  try {
    const isList = contentType.startsWith("application/x-ndjson");
    return isList ? await parseList(text) : parseValue(text);
  } catch (error) {
    throw new VmsanError(
      {
        code: "ERR_AGENT_PROTOCOL",
        message: "The guest's agent sent a reply that is not JSON",
        why: error instanceof RangeError ? `It has ${error.message}.` : text.slice(0, 200),
        fix: "Restart the VM, so that its agent is of this vmsan's version.",
      },
      error,
    );
  }
}

/** The error in the body of a reply with a status of 400 and more. */
export function replyError(status: number, text: string): VmsanError {
  let body: unknown;
  try {
    body = parseValue(text);
  } catch {
    // Not JSON: agentError reports the status alone.
    body = undefined;
  }
  const error =
    typeof body === "object" && body !== null ? (body as { error?: unknown }).error : undefined;
  const action = `The guest's agent answered with status ${status}`;
  if (status !== 426) return agentError(error, action);
  return new VmsanError({ ...agentError(error, action).toJSON(), code: "ERR_AGENT_VERSION" });
}

/** Whether the VM sleeps: its streams are there, and go on with it. */
export function isAsleep(error: unknown): boolean {
  return error instanceof VmsanError && error.code === "ERR_AGENT_ASLEEP";
}

/** Codes, or how they begin, of what does not get better by itself: the last three when a VM cannot be woken. */
const FATAL = /^ERR_(AGENT_VERSION$|AGENT_CLOSED$|VM_|VALIDATION_|SNAPSHOT_|MOUNT_SOURCE$|VOLUME_)/;

/** Whether trying again cannot help: the VM is gone, cannot be woken, or speaks another version. */
export function isFatal(error: unknown): boolean {
  return error instanceof VmsanError && FATAL.test(error.code);
}
