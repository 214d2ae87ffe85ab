/** session/: joined to a guest as it runs. One command, tied to this process's input, outputs, signals and terminal. */
import type { GuestStream } from "../../agent/streams.ts";
import type { Vm } from "../../client/vm.ts";
import type { ExecOptions } from "../../client/guest/commands.ts";
import { VmsanError } from "../../model/errors.ts";
import type { Output } from "../output.ts";
import { renewTimeLimit, timeLimitPassed } from "./time-limit.ts";
import { DetachKeys, localSize, rawTerminal } from "./terminal.ts";
import { writeTo } from "./write-to.ts";

/** What to run and how to join it. */
export interface SessionOptions extends Omit<ExecOptions, "tty" | "stdin"> {
  argv: string[];
  tty?: boolean;
  /** Pass standard input through although it is a terminal. */
  interactive?: boolean;
  /** Whether an interactive command renews the VM's time limit while it runs; default true. */
  extendTimeout?: boolean;
}

/** Most bytes of each output that `--json` collects. */
const MAX_JSON_OUTPUT = 16 << 20;

/** Signals handed on to the command; the second interrupt kills it. */
const FORWARDED = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const;

/** The exit status of shells for a command that could not be started. */
function statusOfFailure(error: unknown): number | undefined {
  if (!(error instanceof VmsanError)) return undefined;
  if (error.code === "ERR_AGENT_NOT_FOUND" || error.code === "ERR_AGENT_NO_SHELL") return 127;
  return error.code === "ERR_AGENT_NOT_EXECUTABLE" ? 126 : undefined;
}

/**
 * Run a command and wait for its end.
 * @returns the command's exit status, as a shell reports it
 */
export async function execInTerminal(
  vm: Vm,
  options: SessionOptions,
  output: Output,
): Promise<number> {
  const { argv, tty = false, interactive = false, extendTimeout = true, ...exec } = options;
  if (exec.detach === true) return await startDetached(vm, argv, exec, tty, output);
  const inputIsTerminal = process.stdin.isTTY;
  // An image archive may have come that way: then there is no input left.
  const inputHasEnded = process.stdin.readableEnded;
  if (tty && output.json) {
    throw new VmsanError({
      code: "ERR_VALIDATION_FLAGS",
      message: "Cannot use --tty together with --json",
      why: "A terminal session has no JSON result.",
      fix: "Give one of them.",
    });
  }
  const withInput = !inputHasEnded && (!inputIsTerminal || interactive || tty);
  const collected = output.json ? new Collected() : undefined;
  const stream = vm.spawn(
    argv,
    { ...exec, stdin: withInput, ...(tty ? { tty: localSize() } : {}) },
    {
      onStdout: collected?.stdout ?? writeTo(process.stdout, () => stream.closeOutput("stdout")),
      onStderr: collected?.stderr ?? writeTo(process.stderr, () => stream.closeOutput("stderr")),
    },
  );
  const session = joinSession(stream, { withInput, tty: tty && inputIsTerminal });
  const leaveLimit =
    extendTimeout && (interactive || tty) ? renewTimeLimit(vm, output) : () => undefined;
  try {
    const exit = await stream.exit;
    const timeLimit = await timeLimitPassed(vm);
    if (collected !== undefined) {
      output.result({
        exitCode: exit.exitCode,
        signal: exit.signal ?? null,
        timedOut: exit.timedOut,
        oomKilled: exit.oomKilled,
        ...(timeLimit === undefined ? {} : { vmTimedOut: true }),
        durationMs: exit.durationMs,
        ...collected.text(),
      });
    }
    session.end();
    if (exit.error !== undefined) output.note(`vmsan: ${exit.error.message}`);
    if (exit.timedOut && !output.json) output.note("vmsan: the command's time limit has passed");
    if (timeLimit !== undefined) output.note(timeLimit);
    if (exit.oomKilled && !output.json)
      output.note("vmsan: the guest killed it for lack of memory");
    return exit.exitCode;
  } catch (error) {
    session.end();
    if (session.detached) {
      output.note(`detached; the command goes on as ${stream.id}`);
      return 0;
    }
    const status = statusOfFailure(error);
    if (status === undefined) throw error;
    output.failure(error);
    return status;
  } finally {
    leaveLimit();
    session.end();
  }
}

/** Start a detached command and print its ID. */
async function startDetached(
  vm: Vm,
  argv: string[],
  exec: ExecOptions,
  tty: boolean,
  output: Output,
): Promise<number> {
  const stream = vm.spawn(argv, {
    ...exec,
    detach: true,
    stdin: false,
    ...(tty ? { tty: localSize() } : {}),
  });
  await stream.started;
  const { id, pid } = stream;
  stream.detach();
  output.result({ commandId: id, pid: pid ?? null, vmId: vm.id }, id);
  return 0;
}

/** Outputs kept for a JSON result. */
class Collected {
  private readonly out: Buffer[] = [];
  private readonly err: Buffer[] = [];
  private size = 0;

  readonly stdout = (chunk: Buffer): undefined => this.keep(this.out, chunk);
  readonly stderr = (chunk: Buffer): undefined => this.keep(this.err, chunk);

  private keep(list: Buffer[], chunk: Buffer): undefined {
    this.size += chunk.length;
    if (this.size <= MAX_JSON_OUTPUT) list.push(Buffer.from(chunk));
  }

  /** Text where it is UTF-8, else base64 and `encoding` saying so. */
  text(): Record<string, unknown> {
    const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    const [out, err] = [Buffer.concat(this.out), Buffer.concat(this.err)];
    const truncated = this.size > MAX_JSON_OUTPUT ? { truncated: true } : {};
    try {
      return { stdout: decoder.decode(out), stderr: decoder.decode(err), ...truncated };
    } catch {
      // TypeError: not UTF-8; bytes are never re-encoded.
      return {
        encoding: "base64",
        stdout: out.toString("base64"),
        stderr: err.toString("base64"),
        ...truncated,
      };
    }
  }
}

/** A stream joined to this process. */
export interface JoinedSession {
  /** Put terminal, input and signal handlers back; may be called more than once. */
  end(): void;
  /** Whether it was left: by the detach keys, or by a signal that says so. */
  readonly detached: boolean;
  /** The exit status for how it was left. */
  readonly leftWith: number;
}

/** Signals of a terminal that is closed and of a process that is ended. */
const ENDS = { SIGHUP: 1, SIGTERM: 15 } as Record<NodeJS.Signals, number | undefined>;

/**
 * Join input, signals and, with a terminal, its modes and size.
 * @param options `leaves`: a signal that ends this process leaves what runs in the guest alone
 */
export function joinSession(
  stream: GuestStream,
  options: { withInput: boolean; tty: boolean; leaves?: boolean },
): JoinedSession {
  const { stdin } = process;
  let detached = false;
  let ended = false;
  let interrupts = 0;
  let leftWith = 0;
  const terminal = options.tty ? rawTerminal((rows, cols) => stream.resize(rows, cols)) : undefined;
  const keys = new DetachKeys();

  if (options.withInput) {
    // EPIPE and the like: the command does not read its input any more.
    stream.stdin.on("error", () => undefined);
    stdin.on("error", () => stream.stdin.end());
    if (options.tty) {
      stdin.on("data", (chunk: Buffer) => {
        const passed = keys.filter(chunk);
        if (passed.length > 0 && !stream.stdin.write(passed)) {
          stdin.pause();
          stream.stdin.once("drain", () => stdin.resume());
        }
        if (keys.detached) {
          detached = true;
          stream.detach();
        }
      });
      stdin.once("end", () => stream.stdin.end());
    } else stdin.pipe(stream.stdin);
  }
  const handlers = FORWARDED.map((name) => {
    const handler = (): void => {
      const number = options.leaves === true ? ENDS[name] : undefined;
      if (number !== undefined) {
        detached = true;
        leftWith = 128 + number;
        stream.detach();
      } else if (name === "SIGINT" && (interrupts += 1) > 1) stream.signal("SIGKILL", true);
      // What a terminal would send to the whole foreground group goes to all of it: a shell
      // that waits for its child does not end before the child does.
      else stream.signal(name, name === "SIGINT" || name === "SIGQUIT" || name === "SIGHUP");
    };
    process.on(name, handler);
    return { name, handler };
  });
  return {
    get detached() {
      return detached;
    },
    get leftWith() {
      return leftWith;
    },
    end: () => {
      if (ended) return;
      ended = true;
      terminal?.restore();
      for (const { name, handler } of handlers) process.off(name, handler);
      stdin.unpipe();
      stdin.removeAllListeners("data");
      stdin.pause();
      // An input that never ends must not keep this process.
      stdin.unref?.();
    },
  };
}
