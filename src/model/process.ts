/** Commands in the guest: what to run and how it ended. */

/** A command to run in a guest. */
export interface ExecRequest {
  argv: string[];
  /** `KEY=VALUE`; complete, defaults already applied. */
  env: string[];
  /** Absolute path in the guest; empty means the user's home or `/`. */
  workdir: string;
  /** `user`, `uid`, `user:group`, `uid:gid`; empty means root. */
  user: string;
  /** With a terminal of that size. */
  tty?: { rows: number; cols: number; term: string };
  /** False: the command's standard input is /dev/null. */
  stdin: boolean;
  /** Keeps running without an attached client; output is kept in a ring. */
  detach: boolean;
  /** Whole process tree: TERM, grace, KILL. Milliseconds; undefined: none. */
  timeoutMs?: number;
}

/** How a command ended. */
export interface ExecResult {
  /** As a shell reports it: the status, 128+N for signal N, 124 on timeout. */
  exitCode: number;
  /** Name of the signal that ended it, e.g. `SIGKILL`. */
  signal?: string;
  timedOut: boolean;
  /** The guest's kernel killed it for memory. */
  oomKilled: boolean;
  durationMs: number;
}
