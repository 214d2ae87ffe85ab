/**
 * What an exec case is: a command, what is done to it while it runs, and what must come out.
 * The expectations are those of `ssh host bash -c …`; where ours differ on purpose (a daemon
 * left behind does not hold the connection, time limits) the case says so.
 */

/** Something done to a running command. */
export interface Step {
  /** Waits until this has appeared on standard output, counted from the last step's match. */
  after?: string;
  send?: string | Buffer;
  /** Ends the input. */
  end?: boolean;
  /** Name, and whether the whole tree gets it. */
  signal?: [string, boolean];
  resize?: [number, number];
  /** The client's own reader of that output leaves. */
  close?: "stdout" | "stderr";
}

/** What to run. */
export interface CaseRun {
  argv: string[];
  env?: string[];
  workdir?: string;
  user?: string;
  tty?: { rows: number; cols: number };
  timeoutMs?: number;
  graceMs?: number;
  /** Absent: no input; `open`: never ended; a number: so many bytes of a fixed noise. */
  stdin?: "open" | number | Buffer;
  steps?: Step[];
}

/** What came out. */
export interface Outcome {
  /** 127 and 126 for what cannot be started, as a shell says. */
  exitCode: number;
  signal?: string;
  timedOut: boolean;
  /** Code of the error, when the command could not be started. */
  error?: string;
  stdoutBytes: number;
  stderrBytes: number;
  stdoutSha256: string;
  stderrSha256: string;
  /** First MiB of each, as latin1 so that every byte counts. */
  stdout: string;
  stderr: string;
}

/** One case. `expect` lists what matters; functions get the value. */
export interface ExecCase {
  name: string;
  run: CaseRun;
  expect: { [K in keyof Outcome]?: Outcome[K] | RegExp | ((value: Outcome[K]) => boolean) };
  /** What the guest must have beyond bash and coreutils: checked before, else skipped aloud. */
  needs?: ("root" | "cgroup" | "passwd-nobody")[];
  /** Ours differs from a plain `bash -c` on purpose; the reason. */
  unlikeBash?: string;
}

/** `bash -c SCRIPT`. */
export function sh(script: string, ...args: string[]): string[] {
  return ["bash", "-c", script, ...(args.length > 0 ? ["bash", ...args] : [])];
}

/** Bytes that do not compress and are always the same ones. */
export function noise(length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  let state = 0x9e3779b9;
  for (let i = 0; i + 4 <= length; i += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes.writeInt32LE(state | 0, i);
  }
  bytes.fill(7, length - (length % 4));
  return bytes;
}

/** Each byte value once. */
export const everyByte = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
