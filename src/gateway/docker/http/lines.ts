/** Answers of lines of JSON: progress, output, and how it ended. */
import { DockerError, asDockerError } from "../errors.ts";
import type { Call } from "./route.ts";
import { beginStream } from "./wire.ts";

/** A reply of lines that begins with its first line, so that a failure before it has a status. */
export class Lines {
  private readonly call: Call;

  constructor(call: Call) {
    this.call = call;
  }

  /** Whether something was sent. */
  get begun(): boolean {
    return this.call.response.headersSent;
  }

  /** Send a line. */
  send(value: object): void {
    const { response } = this.call;
    if (!this.begun) beginStream(response, "application/json");
    // A client that has gone away is seen by whoever works for it.
    if (!response.destroyed) response.write(`${JSON.stringify(value)}\r\n`);
  }

  /** Say what went wrong: by the status when nothing was sent yet. */
  fail(error: unknown): void {
    if (!this.begun) throw error;
    this.failWithin(error);
  }

  /** Say what went wrong in the last line, whether something was sent or not. */
  failWithin(error: unknown): void {
    const { message } = asDockerError(error);
    this.send({ errorDetail: { message }, error: message });
    this.call.response.end();
  }

  /** Nothing follows. */
  end(): void {
    this.call.response.end();
  }
}

/** Aborts when the client goes away before its answer has ended. */
export function signalOf({ response }: Call): AbortSignal {
  const abort = new AbortController();
  response.once("close", () => {
    if (!response.writableEnded) abort.abort(new DockerError(499, "the client went away"));
  });
  return abort.signal;
}
