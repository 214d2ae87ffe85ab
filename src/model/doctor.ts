/** What the doctor found. */

/** `warn`: works, but less than it could; `skip`: not asked for here, or could not be seen. */
export type CheckStatus = "ok" | "warn" | "fail" | "skip";

/** One line of the report. */
export interface CheckResult {
  name: string;
  status: CheckStatus;
  detail: string;
  fix?: string;
  /** What `--fix` did about it. */
  fixed?: string;
  durationMs: number;
}

/** All of it; `ok` when nothing failed. */
export interface DoctorReport {
  ok: boolean;
  checks: CheckResult[];
}
