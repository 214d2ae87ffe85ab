/**
 * Content codings (RFC 9110, section 8.4). None is asked for: `identity` is said with every request.
 * Servers and proxies that compress all the same are understood.
 */
import type { Transform } from "node:stream";
import type { BodySink } from "./connection.ts";

/** Codings that change nothing; the last one is left over from an upload in some object stores. */
const NONE = new Set(["", "identity", "aws-chunked"]);

/** The codings of a body, in the order in which they were put on. */
export function codingsOf(header: string | undefined): string[] {
  const names = (header ?? "").split(",").map((name) => name.trim().toLowerCase());
  return names.filter((name) => !NONE.has(name));
}

/** A stream that takes one coding off. */
async function decoderFor(coding: string): Promise<Transform> {
  // Hardly any answer is compressed.
  const known = await import("../../util/flow/coding.ts");
  const decoder = known.decoderOf(coding);
  if (decoder !== undefined) return decoder;
  throw new Error(`The answer has the unknown Content-Encoding ${JSON.stringify(coding)}`);
}

/** Takes the codings off a body on its way to another sink. Call {@link finish} at the end. */
export class DecodingSink implements BodySink {
  readonly #scratch = Buffer.allocUnsafe(1 << 16);
  readonly #target: BodySink;
  readonly #first: Transform;
  /** Until everything has come out; rejects with what went wrong first. */
  readonly #done: Promise<void>;
  #failure: { error: unknown } | undefined;
  /** Lets go of who is writing: zlib calls back for no write that it refuses. */
  #wake: () => void = () => undefined;

  private constructor(target: BodySink, decoders: readonly [Transform, ...Transform[]]) {
    this.#target = target;
    this.#first = decoders[0];
    let last: Transform = decoders[0];
    for (const decoder of decoders) {
      // The end of the chain is told, and what is being written comes back with an error.
      decoder.on("error", (error) => {
        this.#fail(error);
        for (const each of decoders) each.destroy(error);
      });
      if (decoder !== last) last = last.pipe(decoder);
    }
    this.#done = this.#hand(last);
    this.#done.catch((error: unknown) => {
      this.#fail(error);
      this.#first.destroy();
    });
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wake();
  }

  /** @param codings at least one, as {@link codingsOf} gives them */
  static async open(target: BodySink, codings: readonly string[]): Promise<DecodingSink> {
    const [first, ...others] = await Promise.all(codings.toReversed().map(decoderFor));
    if (first === undefined) throw new TypeError("A body without a coding");
    return new DecodingSink(target, [first, ...others]);
  }

  /** Copy what comes out to the target. */
  async #hand(decoded: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const bytes of decoded) {
      for (let at = 0; at < bytes.length;) {
        const space = this.#target.space();
        const part = bytes.subarray(at, at + space.length);
        space.set(part);
        at += part.length;
        await this.#target.filled(part.length);
      }
    }
  }

  space(): Uint8Array {
    return this.#scratch;
  }

  async filled(size: number): Promise<void> {
    this.#throwFailure();
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      this.#first.write(Buffer.from(this.#scratch.subarray(0, size)), () => resolve());
    });
    this.#throwFailure();
  }

  /** Wait until everything has reached the target. Rejects when the body ends in the middle. */
  async finish(): Promise<void> {
    this.#first.end();
    await this.#done;
  }
}
