/** Run a program to its end: arguments as an array, never a shell; output bounded. */
import { spawn } from "node:child_process";
import { VmsanError, messageOf } from "../model/errors.ts";

/** How a program ended and what it printed. */
export interface RunResult {
  code: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

/** What {@link run} takes beyond the program. */
export interface RunOptions {
  /** Kills the program (TERM, then KILL after 2 s) when aborted. */
  signal?: AbortSignal;
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  input?: string | Uint8Array;
  /** Most bytes kept of each output; the rest is dropped from the front. Default 1 MiB. */
  maxOutput?: number;
  /** Milliseconds after which it is killed; default none. */
  timeoutMs?: number;
  /** Called with each piece of standard output and standard error as it comes. */
  onOutput?: (text: string) => void;
  /** In a process group of its own, all of which is stopped; for programs that start others. */
  group?: boolean;
}

/** The error for a program that cannot be started. */
export function missingProgram(file: string, error: unknown): VmsanError {
  return new VmsanError(
    {
      code: "ERR_SETUP_MISSING_BINARY",
      message: `Cannot run ${file}`,
      why: messageOf(error),
      fix: "Run `vmsan doctor` to see what is missing and how to install it.",
    },
    error,
  );
}

/** Text of at most `limit` characters, its end kept. */
class Tail {
  private text = "";
  private readonly limit: number;
  constructor(limit: number) {
    this.limit = limit;
  }
  add(chunk: string): void {
    this.text += chunk;
    if (this.text.length > 2 * this.limit) this.text = this.text.slice(-this.limit);
  }
  toString(): string {
    return this.text.slice(-this.limit);
  }
}

/**
 * Run a program and wait for its end, whatever its exit status.
 * Throws ERR_SETUP_MISSING_BINARY when there is no such program and the signal's reason when
 * aborted.
 */
export async function run(
  file: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  options.signal?.throwIfAborted();
  const child = spawn(file, args, {
    stdio: ["pipe", "pipe", "pipe"],
    detached: options.group === true,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.env === undefined ? {} : { env: options.env }),
  });
  const stdout = new Tail(options.maxOutput ?? 1 << 20);
  const stderr = new Tail(options.maxOutput ?? 1 << 20);
  for (const [stream, tail] of [
    [child.stdout, stdout],
    [child.stderr, stderr],
  ] as const) {
    stream.setEncoding("utf8");
    stream.on("data", (text: string) => {
      tail.add(text);
      options.onOutput?.(text);
    });
  }
  // EPIPE: a program that does not read its input is its own affair; its status tells.
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.input ?? "");

  const kill = (signal: NodeJS.Signals): void => {
    if (options.group !== true || child.pid === undefined) {
      child.kill(signal);
      return;
    }
    try {
      process.kill(-child.pid, signal);
    } catch {
      // ESRCH: all of the group are gone.
    }
  };
  let hardKill: NodeJS.Timeout | undefined;
  const stop = (): void => {
    kill("SIGTERM");
    hardKill ??= setTimeout(() => kill("SIGKILL"), 2000);
  };
  const timer = options.timeoutMs === undefined ? undefined : setTimeout(stop, options.timeoutMs);
  options.signal?.addEventListener("abort", stop, { once: true });
  try {
    return await new Promise<RunResult>((resolve, reject) => {
      child.on("error", (error) => reject(missingProgram(file, error)));
      child.on("close", (code, signal) => {
        if (options.signal?.aborted === true) reject(options.signal.reason as Error);
        else resolve({ code, signal, stdout: String(stdout), stderr: String(stderr) });
      });
    });
  } finally {
    clearTimeout(timer);
    clearTimeout(hardKill);
    options.signal?.removeEventListener("abort", stop);
  }
}

/**
 * Run a program that must succeed.
 * @param code error code when it exits with another status than 0
 * @returns its standard output
 */
export async function runOk(
  file: string,
  args: readonly string[],
  code: string,
  options: RunOptions = {},
): Promise<string> {
  const result = await run(file, args, options);
  if (result.code === 0) return result.stdout;
  throw new VmsanError({
    code,
    message: `${file} failed with ${result.signal ?? `status ${result.code}`}`,
    why: result.stderr.trim().slice(-2000) || result.stdout.trim().slice(-2000),
    fix: `Run it by hand to see more: ${[file, ...args].join(" ")}`,
  });
}
