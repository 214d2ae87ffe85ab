/**
 * The nouns of vmsan. This folder imports nothing; every other folder only
 * produces or consumes what is defined here.
 *
 * errors.ts: the one error class. Every failure a user can meet has a stable
 * code, a sentence with what was tried and with which value, why it failed,
 * and how to fix it.
 */

/** The parts of a {@link VmsanError}, as they also travel in JSON. */
export interface ErrorInfo {
  /** Stable, for programs: `ERR_AREA_WHAT`. */
  code: string;
  /** What was tried, with which value. */
  message: string;
  /** Why it failed. */
  why?: string;
  /** What the user can do. */
  fix?: string;
  /** More for programs, JSON values only: never secrets. */
  details?: Record<string, unknown>;
}

/** A failure with a stable code, an action, a cause and a remedy. */
export class VmsanError extends Error {
  readonly code: string;
  readonly why: string | undefined;
  readonly fix: string | undefined;
  readonly details: Record<string, unknown> | undefined;

  /**
   * @param info code, message, why and fix
   * @param cause the original error, kept for logs
   */
  constructor(info: ErrorInfo, cause?: unknown) {
    super(info.message, cause === undefined ? undefined : { cause });
    this.name = "VmsanError";
    this.code = info.code;
    this.why = info.why;
    this.fix = info.fix;
    this.details = info.details;
  }

  /** The JSON form used by `--json` and by the HTTP API. */
  toJSON(): ErrorInfo {
    return {
      code: this.code,
      message: this.message,
      ...(this.why === undefined ? {} : { why: this.why }),
      ...(this.fix === undefined ? {} : { fix: this.fix }),
      ...(this.details === undefined ? {} : { details: this.details }),
    };
  }
}

/** The message of anything thrown, on one line. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The errno name (`ENOENT`, `ENOSPC` …) of a system error, if it is one. */
export function errnoOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

/** What the host refuses, whatever was being done: code and remedy by errno. */
const HOST_ERRORS: Record<string, { code: string; fix: string }> = Object.fromEntries(
  [
    {
      errnos: ["ENOSPC", "EDQUOT"],
      code: "ERR_DISK_FULL",
      fix: "Free some space or inodes where VMSAN_DIR is (df -h, df -i, quota); `vmsan image prune --all` removes what no VM uses.",
    },
    {
      errnos: ["EROFS", "EACCES", "EPERM"],
      code: "ERR_HOST_PERMISSION",
      fix: "Make that place writable for this user, or name another directory with VMSAN_DIR; `vmsan doctor` checks it.",
    },
    {
      errnos: ["EMFILE", "ENFILE"],
      code: "ERR_HOST_FILES",
      fix: "Raise the limit of open files (ulimit -n, LimitNOFILE=) and restart the daemon: vmsan daemon stop.",
    },
    {
      errnos: ["ENOMEM", "EAGAIN"],
      code: "ERR_HOST_MEMORY",
      fix: "The host has no memory or processes left for this; stop VMs, or raise the limits (ulimit -u, the control group's).",
    },
  ].flatMap(({ errnos, ...rest }) => errnos.map((errno) => [errno, rest])),
);

/**
 * Anything thrown, as a {@link VmsanError}.
 * An unknown error keeps its message as `why` under the given code and action; one of the host
 * gets the host's code and remedy when the caller knows no remedy.
 */
export function asVmsanError(
  error: unknown,
  action: string,
  code = "ERR_INTERNAL",
  fix?: string,
): VmsanError {
  if (error instanceof VmsanError) return error;
  const why = messageOf(error);
  const host = fix === undefined ? HOST_ERRORS[errnoOf(error) ?? ""] : undefined;
  if (host !== undefined) return new VmsanError({ message: action, why, ...host }, error);
  const info = { code, message: action, why, ...(fix === undefined ? {} : { fix }) };
  return new VmsanError(info, error);
}
