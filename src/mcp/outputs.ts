/** What commands print: a bounded part is told at once, the rest is kept for who asks. */
import { VmsanError } from "../model/errors.ts";

/** Most bytes that one answer shows, of its beginning and of its end. */
export const SHOWN_BYTES = 30_000;
const SHOWN_HEAD = 10_000;
/** Most bytes that are kept of one output, and of all of a session. */
const KEPT_BYTES = 16 << 20;
const KEPT_TOTAL = 64 << 20;

/** The output of one command, both streams as they came. */
class KeptOutput {
  readonly id: string;
  readonly sandbox: string;
  private chunks: Buffer[] = [];
  /** Bytes that are kept. */
  size = 0;
  /** Bytes that came when no more are kept. */
  dropped = 0;

  constructor(id: string, sandbox: string) {
    this.id = id;
    this.sandbox = sandbox;
  }

  add(chunk: Buffer): void {
    const room = Math.max(0, KEPT_BYTES - this.size);
    const part = chunk.subarray(0, room);
    if (part.length > 0) this.chunks.push(Buffer.from(part));
    this.size += part.length;
    this.dropped += chunk.length - part.length;
  }

  /** Bytes from an offset on. */
  slice(offset: number, limit: number): Buffer {
    if (this.chunks.length > 1) this.chunks = [Buffer.concat(this.chunks)];
    return (this.chunks[0] ?? Buffer.alloc(0)).subarray(offset, offset + limit);
  }

  /** What an answer shows of it. */
  shown(): string {
    if (this.size <= SHOWN_BYTES && this.dropped === 0) return this.slice(0, this.size).toString();
    const tail = Math.min(SHOWN_BYTES - SHOWN_HEAD, this.size - SHOWN_HEAD);
    const left = this.size - SHOWN_HEAD - tail;
    const lost = this.dropped === 0 ? "" : `; ${this.dropped} bytes behind its end were not kept`;
    const rest = `[… ${left} bytes left out: read_output with output ${this.id}, offset ${SHOWN_HEAD}${lost} …]`;
    return [
      this.slice(0, SHOWN_HEAD).toString(),
      rest,
      this.slice(SHOWN_HEAD + left, tail).toString(),
    ].join("\n");
  }
}

/** The outputs of one session. */
export class Outputs {
  private readonly kept = new Map<string, KeptOutput>();
  private last = 0;

  /** A new one; the oldest ones go when there are too many. */
  open(sandbox: string): KeptOutput {
    this.last += 1;
    const output = new KeptOutput(String(this.last), sandbox);
    this.kept.set(output.id, output);
    let total = [...this.kept.values()].reduce((sum, { size }) => sum + size, 0);
    for (const [id, { size }] of this.kept) {
      if (total <= KEPT_TOTAL && this.kept.size <= 1000) break;
      total -= size;
      this.kept.delete(id);
    }
    return output;
  }

  list(): KeptOutput[] {
    return [...this.kept.values()];
  }

  /** @throws ERR_MCP_OUTPUT_NOT_FOUND */
  get(id: string): KeptOutput {
    const found = this.kept.get(id);
    if (found !== undefined) return found;
    throw new VmsanError({
      code: "ERR_MCP_OUTPUT_NOT_FOUND",
      message: `There is no output ${JSON.stringify(id)}`,
      why: "It never was, or it is no longer kept.",
      fix: "Run the command again, with its output in a file of the sandbox.",
    });
  }

  /** Forget those of a sandbox that is gone. */
  forget(sandbox: string): void {
    for (const [id, output] of this.kept) if (output.sandbox === sandbox) this.kept.delete(id);
  }
}
