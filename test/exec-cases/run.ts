/** Runs an exec case on anything that can start a guest stream. */
import { createHash } from "node:crypto";
import type { Writable } from "node:stream";
import type { OutputCallback } from "../../src/agent/output.ts";
import type { StreamExit, StreamSpec } from "../../src/agent/spec.ts";
import { VmsanError } from "../../src/model/errors.ts";
import { noise } from "./case.ts";
import type { CaseRun, Outcome, Step } from "./case.ts";

/** A command that runs: a guest's stream, or a process that stands for one. */
export interface RunningCommand {
  stdin: Writable;
  signal(name: string, tree: boolean): void;
  resize(rows: number, cols: number): void;
  closeOutput(name: "stdout" | "stderr"): void;
  /** Rejects with a VmsanError when the command could not be started. */
  exit: Promise<Pick<StreamExit, "exitCode" | "signal" | "timedOut">>;
}

/** Starts a command: `(spec, options) => startStream(transport, spec, options)`. */
export type StartCommand = (
  spec: StreamSpec,
  outputs: { onStdout: OutputCallback; onStderr: OutputCallback },
) => RunningCommand;

const KEPT = 1 << 20;

/** One output: counted, hashed, its beginning kept, and watched for what steps wait for. */
class Collector {
  bytes = 0;
  private readonly hash = createHash("sha256");
  private kept: Buffer[] = [];
  private keptBytes = 0;
  private unseen = "";
  private waiting: { text: string; resolve: () => void } | undefined;

  readonly take = (chunk: Buffer): void => {
    this.bytes += chunk.length;
    this.hash.update(chunk);
    if (this.keptBytes < KEPT) {
      this.kept.push(Buffer.from(chunk));
      this.keptBytes += chunk.length;
      this.unseen += chunk.toString("latin1");
      this.look();
    }
  };

  /** Resolves when the text has come. */
  async after(text: string): Promise<void> {
    await new Promise<void>((resolve) => {
      this.waiting = { text, resolve };
      this.look();
    });
  }

  text(): string {
    return Buffer.concat(this.kept).subarray(0, KEPT).toString("latin1");
  }

  sum(): string {
    return this.hash.digest("hex");
  }

  private look(): void {
    if (this.waiting === undefined) return;
    const at = this.unseen.indexOf(this.waiting.text);
    if (at < 0) return;
    this.unseen = this.unseen.slice(at + this.waiting.text.length);
    const { resolve } = this.waiting;
    this.waiting = undefined;
    resolve();
  }
}

/** What a shell would say of a command that could not be started. */
function shellStatus(code: string): number {
  if (code === "ERR_AGENT_NOT_FOUND") return 127;
  return code === "ERR_AGENT_NOT_EXECUTABLE" ? 126 : 255;
}

/** Do the steps one after the other. */
async function follow(steps: Step[], stream: RunningCommand, stdout: Collector): Promise<void> {
  for (const step of steps) {
    if (step.after !== undefined) await stdout.after(step.after);
    if (step.send !== undefined) stream.stdin.write(step.send);
    if (step.end === true) stream.stdin.end();
    if (step.signal !== undefined) stream.signal(...step.signal);
    if (step.resize !== undefined) stream.resize(...step.resize);
    if (step.close !== undefined) stream.closeOutput(step.close);
  }
}

/** Run a command to its end. Rejects only for what is not the command's own doing. */
export async function runCase(start: StartCommand, run: CaseRun): Promise<Outcome> {
  const stdout = new Collector();
  const stderr = new Collector();
  const { tty, stdin, steps = [], ...rest } = run;
  const stream = start(
    {
      kind: "exec",
      ...rest,
      ...(tty === undefined ? {} : { tty: { ...tty, term: "xterm-256color" } }),
      stdin: stdin !== undefined || steps.length > 0,
    },
    { onStdout: stdout.take, onStderr: stderr.take },
  );
  if (typeof stdin === "number") stream.stdin.end(noise(stdin));
  else if (Buffer.isBuffer(stdin)) stream.stdin.end(stdin);
  const done = follow(steps, stream, stdout);
  let end: Pick<Outcome, "exitCode" | "signal" | "timedOut" | "error">;
  try {
    const { exitCode, signal, timedOut } = await stream.exit;
    end = { exitCode, ...(signal === undefined ? {} : { signal }), timedOut };
  } catch (error) {
    if (!(error instanceof VmsanError) || error.code === "ERR_AGENT_UNREACHABLE") throw error;
    end = { exitCode: shellStatus(error.code), timedOut: false, error: error.code };
  }
  // A step that waits for what never came ends with its command.
  void done;
  return {
    ...end,
    stdoutBytes: stdout.bytes,
    stderrBytes: stderr.bytes,
    stdout: stdout.text(),
    stderr: stderr.text(),
    stdoutSha256: stdout.sum(),
    stderrSha256: stderr.sum(),
  };
}
