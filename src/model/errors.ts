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

/**
 * Anything thrown, as a {@link VmsanError}.
 * An unknown error keeps its message as `why` under the given code and action.
 */
export function asVmsanError(
  error: unknown,
  action: string,
  code = "ERR_INTERNAL",
  fix?: string,
): VmsanError {
  if (error instanceof VmsanError) return error;
  return new VmsanError(
    { code, message: action, why: messageOf(error), ...(fix === undefined ? {} : { fix }) },
    error,
  );
}
