/** What is done in the builder's guest: commands of builds, by its agent. */
import { setTimeout as sleep } from "node:timers/promises";
import { listStreams, signalStream } from "../../agent/commands.ts";
import { openFile } from "../../agent/file-stream.ts";
import type { StreamInfo } from "../../agent/spec.ts";
import { startStream } from "../../agent/streams.ts";
import type { GuestStream, StreamOptions } from "../../agent/streams.ts";
import type { GuestTransport } from "../../agent/transport.ts";
import { VmsanError } from "../../model/errors.ts";
import type { Sleep } from "../../sandbox/snapshots/sleep.ts";
import { collect } from "../../util/flow/collect.ts";

/** Label of commands that belong to a build. */
const STREAM_LABEL = "vmsan-build";
/**
 * Of programs of builds; steps see none of it. Go's own are for emulated guests, where buildah's collections of what is at
 * most some ten MB and the signals that interrupt what runs for 10 ms are a fifth of a build.
 */
const ENVIRONMENT = [
  "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  "HOME=/root",
  "LANG=C.UTF-8",
  "TMPDIR=/var/tmp",
  "BUILDAH_ISOLATION=chroot",
  "GODEBUG=asyncpreemptoff=1",
  "GOGC=400",
  "GOMEMLIMIT=256MiB",
];

/** What a command in the builder said and how it ended. */
export interface Said {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** Looks, a tenth of a second apart, at whether what was killed in the guest has ended. */
const END_TRIES = 50;

/** Whether an error says that the VM has ended. */
export function isGone(error: unknown): boolean {
  const gone = ["ERR_VM_NOT_RUNNING", "ERR_VM_NOT_FOUND"];
  return error instanceof VmsanError && gone.includes(error.code);
}

/** The error for a build whose VM has ended. */
export function endedWithVm(cause: unknown): VmsanError {
  return builderError("go on", "Its VM has ended: stopped, removed or killed.", cause);
}

/** The error for a builder that does not do what it must. */
function builderError(what: string, why: string, cause?: unknown): VmsanError {
  const fix = "Build again; `vmsan build prune` makes a new builder.";
  const message = `The builder cannot ${what}`;
  return new VmsanError({ code: "ERR_BUILD_BUILDER", message, why, fix }, cause);
}

/** Most of a short command's output that is kept, in characters. */
const SAID_LIMIT = 64 << 10;

/** Whether a stream is a build's command, or the way to the registry of a daemon that was killed. */
function isOfBuilds({ running, label, kind }: StreamInfo): boolean {
  return running && (label === STREAM_LABEL || kind === "listen");
}

/** Kill what a stream runs, all of it. */
async function endStream(transport: GuestTransport, id: string): Promise<void> {
  try {
    await signalStream(transport, id, "SIGKILL", true);
  } catch (error) {
    // It has ended since it was listed: nothing is left to be killed.
    if (!(error instanceof VmsanError) || error.code !== "ERR_AGENT_STREAM_ENDED") throw error;
  }
}

/** The guest of a builder; IDs are the VM's. */
export class BuilderGuest {
  readonly #sleeper: Pick<Sleep, "channel">;

  constructor(sleeper: Pick<Sleep, "channel">) {
    this.#sleeper = sleeper;
  }

  /** The way to the VM's agent; wakes it. */
  transport(id: string): GuestTransport {
    return {
      open: async (path, signal) =>
        (await this.#sleeper.channel(id, true, signal)).open(path, signal),
      request: async (method, path, options = {}) => {
        const signal = options.signal ?? new AbortController().signal;
        return (await this.#sleeper.channel(id, true, signal)).request(method, path, options);
      },
    };
  }

  /** Kill what builds have left that did not come to their end. */
  async endBuilds(id: string, signal: AbortSignal): Promise<void> {
    const transport = this.transport(id);
    for (let tries = 0; tries < END_TRIES; tries += 1) {
      const running = (await listStreams(transport)).filter(isOfBuilds);
      if (running.length === 0) break;
      for (const { id: left } of running) await endStream(transport, left);
      await sleep(100, undefined, { signal });
    }
  }

  /** Start a command in the builder, as root. */
  start(id: string, argv: readonly string[], options: StreamOptions, stdin = false): GuestStream {
    const spec = {
      kind: "exec" as const,
      argv: [...argv],
      env: ENVIRONMENT,
      user: "0",
      workdir: "/",
      stdin,
      label: STREAM_LABEL,
    };
    return startStream(this.transport(id), spec, options);
  }

  /** Run a short command in the builder to its end. */
  async run(id: string, argv: readonly string[], signal: AbortSignal): Promise<Said> {
    const said = { stdout: "", stderr: "" };
    const keep = (which: keyof typeof said) => (bytes: Buffer) => {
      said[which] = (said[which] + bytes.toString("utf8")).slice(-SAID_LIMIT);
    };
    const stream = this.start(id, argv, {
      signal,
      onStdout: keep("stdout"),
      onStderr: keep("stderr"),
    });
    const { exitCode } = await stream.exit;
    return { exitCode, ...said };
  }

  /** The same, of a command that must succeed. @throws ERR_BUILD_BUILDER */
  async must(id: string, argv: readonly string[], signal: AbortSignal): Promise<string> {
    const { exitCode, stdout, stderr } = await this.run(id, argv, signal);
    if (exitCode === 0) return stdout;
    const why = stderr.trim().slice(-1000) || `It ended with status ${exitCode}.`;
    throw builderError(`run ${argv.slice(0, 2).join(" ")}`, why);
  }

  /** A small file of the builder, as text. @throws ERR_BUILD_BUILDER when it is not small */
  async read(id: string, path: string, signal: AbortSignal): Promise<string> {
    const file = await openFile(this.transport(id), path, { signal, user: "0" });
    const bytes = await collect(file, SAID_LIMIT, () =>
      builderError(`read ${path}`, "It is endless."),
    );
    return bytes.toString("utf8");
  }
}
