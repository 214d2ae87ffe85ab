/** How commands in the guest end. */

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

/** One limit of processes, by its name for ulimit(1): `nofile`, `memlock`; -1 is none. */
export interface ProcessLimit {
  name: string;
  soft: number;
  hard: number;
}
