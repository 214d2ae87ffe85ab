/** What guest streams are started and attached with, and the errors of their ends. */
import { VmsanError, messageOf } from "../model/errors.ts";
import { FrameType } from "./frames.ts";
import type { OutputNumber } from "./frames.ts";
import type { OutputCallback } from "./output.ts";
import type { StreamSpec } from "./spec.ts";

/** Bytes that the guest's ring had dropped before they could be sent. */
export interface Gap {
  stream: "stdout" | "stderr";
  from: number;
  to: number;
}

/** What a stream is started or attached with. */
export interface StreamOptions {
  /** Takes standard output instead of {@link GuestStream.stdout}: the fast way. */
  onStdout?: OutputCallback;
  onStderr?: OutputCallback;
  /** Called once the agent has the stream: for a command, once it runs. */
  onStarted?: (pid: number | undefined) => void;
  onGap?: (gap: Gap) => void;
  /** Called when the connection breaks and when it is back. */
  onConnection?: (up: boolean) => void;
  /** Kills the whole process tree, then rejects `exit` with the signal's reason. */
  signal?: AbortSignal;
  /** Milliseconds without a connection after which `exit` rejects; default 60 s. */
  reconnectMs?: number;
}

/** How to attach to a stream that runs. */
export interface AttachOptions extends StreamOptions {
  /** Offsets of the first bytes wanted; default 0, which is all that is kept. */
  from?: { stdout: number; stderr: number };
  /** Only look: does not acknowledge, may meet gaps, does not disturb the stream's client. */
  observe?: boolean;
  /** Start that many bytes before the end. */
  tail?: number;
}

/** What a stream's first frame is made of. */
export type Opening =
  | { kind: "start"; spec: StreamSpec }
  | { kind: "attach"; observe: boolean; tail: number | undefined };

/** The error of a stream's `exit` after its `detach`. */
export function detachedError(id: string): VmsanError {
  return new VmsanError({
    code: "ERR_AGENT_DETACHED",
    message: `Detached from ${id}; it goes on in the guest`,
    fix: `Attach to it again by its ID, ${id}.`,
  });
}

/** The output that a data frame belongs to. */
export function outputOf(type: number): OutputNumber | undefined {
  if (type === FrameType.STDOUT) return 1;
  return type === FrameType.STDERR ? 2 : undefined;
}

/** A terminal's rows or columns, as 16 bits. */
export function clampSize(value: number): number {
  return Math.max(1, Math.min(65_535, Math.trunc(value) || 1));
}

/** The error of a stream whose connection did not come back. */
export function lostError(id: string, cause: unknown): VmsanError {
  return new VmsanError(
    {
      code: "ERR_AGENT_UNREACHABLE",
      message: `Lost the connection to ${id} in the guest`,
      why: messageOf(cause),
      fix: "What runs in the guest goes on; attach to it by its ID once the VM answers again.",
    },
    cause,
  );
}
