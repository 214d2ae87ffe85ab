/**
 * remote/: commands and terminals of pods for clients elsewhere, whichever protocol they come by. Takes a
 * connection, gives one session: an input, two outputs, sizes, an end with a status.
 *
 * session.ts: what every protocol makes of its connection.
 */
import type { Readable } from "node:stream";
import type { OutputNumber } from "../../../agent/frames.ts";

/** Which streams a client wants. */
export interface SessionWish {
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  tty: boolean;
}

/** One client with a command or a terminal. */
export interface RemoteSession {
  /** What the client sends; ends with its end of input. Absent when it has none. */
  readonly stdin: Readable | undefined;
  /** Aborted when the client has gone. */
  readonly gone: AbortSignal;
  /** Hand on output; resolves when the client takes more, or has gone. */
  output(stream: OutputNumber, bytes: Buffer): Promise<void>;
  /** Told of each size of the client's terminal, also of those that came before. */
  onResize(take: (rows: number, cols: number) => void): void;
  /** Tell how it ended, and end the connection. */
  end(status: object): Promise<void>;
}

/** Sizes of a client's terminal, kept until somebody asks. */
export class Sizes {
  private last: [rows: number, cols: number] | undefined;
  private take: ((rows: number, cols: number) => void) | undefined;

  /** Read what a client sends: `{"Width":80,"Height":24}`. What is none is left out. */
  accept(bytes: Buffer): void {
    let given: unknown;
    try {
      given = JSON.parse(bytes.toString("utf8"));
    } catch {
      // SyntaxError: a size that cannot be read changes nothing.
      return;
    }
    const { Width: cols, Height: rows } = (given ?? {}) as { Width?: unknown; Height?: unknown };
    if (typeof rows !== "number" || typeof cols !== "number" || rows < 1 || cols < 1) return;
    this.last = [rows, cols];
    this.take?.(rows, cols);
  }

  /** See {@link RemoteSession.onResize}. */
  onResize(take: (rows: number, cols: number) => void): void {
    this.take = take;
    if (this.last !== undefined) take(...this.last);
  }
}

/** `v1.Status` of a command that ended with 0, or of a client that was attached to its end. */
export const SUCCESS: object = { metadata: {}, status: "Success" };

/** `v1.Status` of a command that ended with another status. */
export function exitStatus(exitCode: number): object {
  return {
    metadata: {},
    status: "Failure",
    message: `command terminated with non-zero exit code: ${exitCode}`,
    reason: "NonZeroExitCode",
    details: { causes: [{ reason: "ExitCode", message: String(exitCode) }] },
  };
}

/** `v1.Status` of what could not be done. */
export function failureStatus(message: string): object {
  return {
    metadata: {},
    status: "Failure",
    message,
    reason: "InternalError",
    details: { causes: [{ message }] },
    code: 500,
  };
}
