/** Commands in a VM's guest: how SDK users write them, and what the agent is asked for. */
import type { StreamExit, StreamSpec } from "../../agent/spec.ts";
import type { GuestStream, StreamOptions } from "../../agent/streams.ts";
import type { VmView } from "../../model/api.ts";
import { VmsanError } from "../../model/errors.ts";
import { parseEnv } from "../options.ts";

/** A command as SDK users write it; what is left out comes from the VM and its image. */
export interface ExecOptions {
  /** `KEY=VALUE`, over the VM's and the image's; `KEY` alone takes one of theirs away. */
  env?: string[];
  workdir?: string;
  user?: string;
  tty?: { rows: number; cols: number; term?: string };
  /** Whether the command has a standard input; default true for spawn, false for exec. */
  stdin?: boolean;
  /** Goes on without a client; its output is kept in a ring. */
  detach?: boolean;
  /** With `detach`: what nobody takes holds the command up, once the ring is full, and is never lost. */
  hold?: boolean;
  /** Bytes of output kept in the guest; default 4 MiB, 1 MiB with `detach`. */
  ringBytes?: number;
  /** Milliseconds: then TERM to all it started, and KILL after a grace time. */
  timeoutMs?: number;
  graceMs?: number;
  /** Name of the session, for `ps`. */
  label?: string;
}

/** A finished command with its output. */
export interface ExecOutput extends StreamExit {
  stdout: Buffer;
  stderr: Buffer;
}

/** Most bytes of each output that `exec` collects. */
const MAX_COLLECTED = 64 << 20;

/** Join `KEY=VALUE` lists; later ones win. `KEY` alone takes the variable away, as in Docker. */
export function mergeEnv(...lists: readonly (readonly string[])[]): string[] {
  const merged = new Map<string, string>();
  for (const entry of lists.flat()) {
    const at = entry.indexOf("=");
    if (at < 0) merged.delete(entry);
    else merged.set(entry.slice(0, at), entry);
  }
  return [...merged.values()];
}

/** The image's command line: its entrypoint, then the given words or its own. */
export function commandLineOf(
  view: VmView,
  words: readonly string[],
  entrypoint?: string,
): string[] {
  const config = view.image?.config;
  const before = entrypoint ?? config?.entrypoint ?? [];
  const first = typeof before === "string" ? (before === "" ? [] : [before]) : before;
  // An entrypoint given by the user clears the image's CMD, as with other runtimes.
  const rest = words.length > 0 || entrypoint !== undefined ? words : (config?.cmd ?? []);
  const line = [...first, ...rest];
  if (line.length > 0) return line;
  throw new VmsanError({
    code: "ERR_VALIDATION_FLAGS",
    message: `No command to run in ${view.image?.name ?? view.id}`,
    why: "The image has neither an entrypoint nor a command of its own.",
    fix: "Say what to run behind the image: vmsan run IMAGE -- COMMAND.",
  });
}

/** What the agent is asked to start for these words and options. */
export function commandSpec(
  view: VmView,
  argv: readonly string[],
  options: ExecOptions,
): StreamSpec {
  const { defaults } = view;
  const config = view.image?.config;
  const user = options.user ?? defaults.user ?? config?.user;
  const workdir = options.workdir ?? defaults.workdir ?? config?.workingDir;
  const { tty } = options;
  return {
    kind: "exec",
    argv: [...argv],
    env: mergeEnv(config?.env ?? [], defaults.env, parseEnv(options.env ?? [])),
    ...(workdir === undefined || workdir === "" ? {} : { workdir }),
    ...(user === undefined || user === "" ? {} : { user }),
    ...(tty === undefined
      ? {}
      : { tty: { rows: tty.rows, cols: tty.cols, term: tty.term ?? "xterm-256color" } }),
    stdin: options.stdin ?? true,
    detach: options.detach ?? false,
    ...(options.hold === true ? { hold: true } : {}),
    ...(options.ringBytes === undefined ? {} : { ringBytes: options.ringBytes }),
    ...(options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs }),
    ...(options.graceMs === undefined ? {} : { graceMs: options.graceMs }),
    ...(options.label === undefined ? {} : { label: options.label }),
  };
}

/**
 * Run a command to its end and collect what it prints.
 * @param spawn starts it
 * @param program for people
 */
export async function collected(
  options: ExecOptions & { input?: string | Uint8Array; signal?: AbortSignal },
  spawn: (options: ExecOptions, io: StreamOptions) => GuestStream,
  program = "",
): Promise<ExecOutput> {
  const { input, signal, ...rest } = options;
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  let size = 0;
  const keep =
    (list: Buffer[]) =>
    (chunk: Buffer): void => {
      size += chunk.length;
      if (size <= MAX_COLLECTED) list.push(Buffer.from(chunk));
    };
  const stream = spawn(
    { ...rest, stdin: input !== undefined },
    {
      onStdout: keep(stdout),
      onStderr: keep(stderr),
      ...(signal === undefined ? {} : { signal }),
    },
  );
  if (input !== undefined) {
    // A command that does not read its input is its own affair; its status tells.
    stream.stdin.on("error", () => undefined);
    stream.stdin.end(input);
  }
  const exit = await stream.exit;
  if (size > MAX_COLLECTED) {
    throw new VmsanError({
      code: "ERR_AGENT_OUTPUT",
      message: `Cannot collect the output of ${JSON.stringify(program)}`,
      why: `It printed ${size} bytes; at most ${MAX_COLLECTED} are collected.`,
      fix: "Use spawn, which hands output over as it comes.",
    });
  }
  return { ...exit, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr) };
}
