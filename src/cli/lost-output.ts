/** What this process could not write: it is said, and the exit status tells, whatever the command. */
import { writeSync } from "node:fs";
import { VmsanError, errnoOf, messageOf } from "../model/errors.ts";
import { plain } from "./output.ts";

/** As of a program that SIGPIPE has ended: what shells show for a reader that has left. */
const READER_LEFT = 141;

/** What became of one of the standard outputs. */
interface Loss {
  name: "output" | "error";
  error: unknown;
}

/**
 * The exit status of a process whose writes failed.
 * @param status what it would have been
 */
export function statusAfterLoss(status: number, errors: readonly unknown[]): number {
  if (errors.every((error) => errnoOf(error) === "EPIPE")) {
    return status === 0 ? READER_LEFT : status;
  }
  // A command in a guest that was told of it by SIGPIPE has not ended by itself.
  return status === 0 || status === READER_LEFT ? 1 : status;
}

const REASONS: Record<string, string> = {
  EPIPE: "Its reader has left; the rest is lost.",
  EBADF: "It is closed, or not open for writing.",
};

/** The failure as people read it. */
function describeLoss({ name, error }: Loss): VmsanError {
  return new VmsanError({
    code: "ERR_OUTPUT",
    message: `Cannot write to standard ${name}`,
    why: REASONS[errnoOf(error) ?? ""] ?? messageOf(error),
    fix: "Make room where it goes, or send it elsewhere.",
  });
}

/**
 * Node.js takes a file's short write for a whole one, which loses the rest on a disk that is
 * nearly full: write on until all is there or the kernel says why not.
 */
function writeWhole(stream: NodeJS.WriteStream, fd: number): void {
  if ((stream as unknown as { _type?: string })._type !== "fs") return;
  stream._write = (chunk: Buffer, _encoding, done): void => {
    try {
      for (let at = 0; at < chunk.length;) at += writeSync(fd, chunk, at);
    } catch (error) {
      done(error as Error);
      return;
    }
    done();
  };
}

/**
 * Watch both outputs from here on. A command that cannot write its result ends at once; one that
 * listens itself (`exec`, which tells the guest's command) goes on. At the end what was lost is
 * said, and decides the exit status.
 */
export function guardOutputs(): void {
  const losses: Loss[] = [];
  const watch = (stream: NodeJS.WriteStream, name: Loss["name"], fd: number): void => {
    writeWhole(stream, fd);
    stream.on("error", (error) => {
      if (!losses.some((loss) => loss.name === name)) losses.push({ name, error });
      if (name === "output" && stream.listenerCount("error") === 1) process.exit();
    });
  };
  watch(process.stdout, "output", 1);
  watch(process.stderr, "error", 2);
  process.on("exit", (status) => {
    if (losses.length === 0) return;
    process.exitCode = statusAfterLoss(
      status,
      losses.map(({ error }) => error),
    );
    // The status of a command in the guest that a reader's leaving has ended says it already.
    if (status === READER_LEFT && process.exitCode === status) return;
    for (const loss of losses) {
      const { message, code, why, fix } = describeLoss(loss);
      const text = plain(`error: ${message} [${code}]\n  why: ${why}\n  fix: ${fix}\n`);
      try {
        writeSync(2, text);
      } catch {
        // ENOSPC, EPIPE, EBADF: nobody can be told; the status does.
      }
    }
  });
}
