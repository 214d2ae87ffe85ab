/** What a build prints, as progress: lines, bounded, with the step that they belong to. */
import { StringDecoder } from "node:string_decoder";
import type { ProgressSink } from "../model/progress.ts";

/** Bytes of output that are passed on; a command may print without end. */
const LIMIT = 16 << 20;
/** Longest line that is passed on in one piece, in characters. */
const LINE = 8192;
/** Lines that are kept for the error. */
const KEPT = 20;

/** Gathers the output of one build. */
export class BuildOutput {
  readonly #sink: ProgressSink;
  readonly #pending = { stdout: "", stderr: "" };
  readonly #decoders = { stdout: new StringDecoder("utf8"), stderr: new StringDecoder("utf8") };
  readonly #tail: string[] = [];
  #bytes = 0;
  /** The step that runs, as buildah names it: `STEP 2/5: RUN make`. */
  step = "";

  constructor(sink: ProgressSink) {
    this.#sink = sink;
  }

  /** The last lines. */
  get tail(): string {
    return this.#tail.join("\n");
  }

  /** Take what came. */
  take(from: "stdout" | "stderr", bytes: Buffer): void {
    const before = this.#bytes;
    this.#bytes += bytes.length;
    const text = this.#pending[from] + this.#decoders[from].write(bytes);
    const lines = text.split(/\r?\n|\r/);
    const rest = lines.pop() ?? "";
    this.#pending[from] = rest.length > LINE ? "" : rest;
    if (rest.length > LINE) lines.push(rest);
    for (const line of lines) this.#line(line, before < LIMIT);
    if (before < LIMIT && this.#bytes >= LIMIT) {
      const message = `output beyond ${LIMIT >> 20} MiB is left out`;
      this.#sink({ phase: "build", message });
    }
  }

  /** No more comes. */
  end(): void {
    for (const from of ["stdout", "stderr"] as const) {
      const rest = this.#pending[from];
      this.#pending[from] = "";
      if (rest !== "") this.#line(rest, this.#bytes < LIMIT);
    }
  }

  #line(line: string, shown: boolean): void {
    if (/^(\[\d+\/\d+\] )?STEP \d+(\/\d+)?: /.test(line)) this.step = line.slice(0, 300);
    if (line.trim() === "") return;
    // What buildah says of a step has all of that before it.
    this.#tail.push(line.slice(0, line.startsWith("Error: ") ? LINE : 500));
    if (this.#tail.length > KEPT) this.#tail.shift();
    if (shown) this.#sink({ phase: "build", message: line });
  }
}
