/** Extended attributes of a context's files, which Node.js cannot read: a Go program of this package does. */
import { spawn } from "node:child_process";
import type { ChildProcessByStdio } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { VmsanError } from "../../model/errors.ts";
import type { Attributes } from "../../agent/archive/pax.ts";
import { fileServerBinary } from "../../util/package.ts";

/** The error for a program that does not do what it must. */
function unreadable(why: string, cause?: unknown): VmsanError {
  return new VmsanError(
    {
      code: "ERR_BUILD_CONTEXT",
      message: "Cannot read the extended attributes of the context's files",
      why,
      fix: "Is this installation of vmsan complete? `vmsan doctor` looks.",
    },
    cause,
  );
}

/** Reads attributes of files of this host, for as long as it is open. */
export class AttributeReader {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;
  #failure: unknown;

  constructor() {
    const child = spawn(fileServerBinary(), ["--attributes"], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    child.on("error", (error) => (this.#failure = error));
    // EPIPE: it has ended, which the answers that do not come say.
    child.stdin.on("error", () => undefined);
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  /** Attributes of each of these paths, none for what is not there. @throws ERR_BUILD_CONTEXT */
  async of(paths: readonly Buffer[]): Promise<Attributes[]> {
    const question = Buffer.concat(paths.flatMap((path) => [path, Buffer.of(0)]));
    this.#child.stdin.write(question);
    const found: Attributes[] = [];
    for (const _ of paths) {
      const { value, done } = await this.#lines.next();
      if (done === true) throw unreadable("The program that reads them has ended.", this.#failure);
      const pairs = Object.entries(JSON.parse(value) as Record<string, string>);
      found.push(new Map(pairs.map(([name, text]) => [name, Buffer.from(text, "base64")])));
    }
    return found;
  }

  /** End the program. */
  async close(): Promise<void> {
    this.#child.stdin.end();
    if (this.#child.pid !== undefined && this.#child.exitCode === null)
      await once(this.#child, "exit");
  }
}
