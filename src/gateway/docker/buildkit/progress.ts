/** How a build goes, as buildx draws it: steps with their output. */
import { createHash, randomUUID } from "node:crypto";
import { encode } from "../../../util/packing/protobuf.ts";

/** Most messages that are kept for a reader that comes late. */
const KEPT = 20_000;

/** A moment in the form of messages. */
function timestamp(ms: number): Buffer {
  return encode([1, Math.floor(ms / 1000)], [2, (ms % 1000) * 1_000_000]);
}

/** One step that is under way. */
interface Step {
  digest: string;
  name: string;
  started: number;
}

/** The progress of one build; readers get all of it, whenever they come. */
export class Progress {
  private readonly sent: Buffer[] = [];
  private readonly readers = new Set<(message: Buffer) => void>();
  private readonly id = randomUUID();
  private steps = 0;
  private step: Step | undefined;
  private over = false;
  private readonly ends: (() => void)[] = [];

  private emit(message: Buffer): void {
    if (this.sent.length < KEPT) this.sent.push(message);
    for (const reader of this.readers) reader(message);
  }

  private show({ digest, name, started }: Step, end?: { error: string }): void {
    const vertex = encode(
      [1, digest],
      [3, name],
      [5, timestamp(started)],
      [6, end === undefined ? undefined : timestamp(Date.now())],
      [7, end?.error],
    );
    this.emit(encode([1, vertex]));
  }

  /** The step before has ended, and this one begins. */
  begin(name: string): void {
    this.end();
    this.steps += 1;
    const hash = createHash("sha256").update(`${this.id} ${this.steps}`).digest("hex");
    this.step = { digest: `sha256:${hash}`, name, started: Date.now() };
    this.show(this.step);
  }

  /** The step that is under way has ended. @param error why it has failed; empty: it has not */
  end(error = ""): void {
    if (this.step !== undefined) this.show(this.step, { error });
    this.step = undefined;
  }

  /** What a step prints. */
  log(text: string): void {
    if (this.step === undefined) return;
    const { digest } = this.step;
    const log = encode([1, digest], [2, timestamp(Date.now())], [3, 1], [4, text]);
    this.emit(encode([3, log]));
  }

  /** Nothing follows. */
  finish(): void {
    this.end();
    this.over = true;
    for (const end of this.ends.splice(0)) end();
  }

  /** Read all of it until its end, or until a reader goes. */
  async follow(reader: (message: Buffer) => void, signal: AbortSignal): Promise<void> {
    for (const message of this.sent) reader(message);
    if (this.over || signal.aborted) return;
    this.readers.add(reader);
    await new Promise<void>((resolve) => {
      this.ends.push(resolve);
      signal.addEventListener("abort", () => resolve(), { once: true });
    });
    this.readers.delete(reader);
  }
}
