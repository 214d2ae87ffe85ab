/** What every check is, and what it is given and finds. */
import type { CheckStatus } from "../model/doctor.ts";
import type { Layout } from "../util/paths.ts";

/** What a check found. */
export interface Finding {
  status: CheckStatus;
  /** One sentence with what was seen. */
  detail: string;
  /** What the user can do. */
  fix?: string;
  /** Does it, when it is safe without asking. @returns what was done */
  repair?: (signal: AbortSignal) => Promise<string>;
}

/** What checks are given. */
export interface DoctorContext {
  layout: Layout;
  signal: AbortSignal;
  /** What the daemon of this VMSAN_DIR answers; undefined when none listens. */
  daemon?: () => Promise<{ version: string; pid: number } | undefined>;
}

/** One thing to look at. */
export interface Check {
  /** kebab-case, stable, for programs. */
  name: string;
  run(context: DoctorContext): Promise<Finding>;
}
