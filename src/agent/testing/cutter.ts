/** For tests: connections that break at random bytes. */
import { Duplex } from "node:stream";

/** A generator of numbers below 1 that is the same for the same seed. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Connections that are cut after a random number of bytes, in both directions together. */
export class Cutter {
  cuts = 0;
  private readonly limit: number;
  private readonly next: () => number;
  private readonly mean: number;

  /**
   * @param limit number of cuts after which connections are left alone
   * @param mean bytes that pass before a cut
   */
  constructor(limit: number, mean: number, seed: number) {
    this.limit = limit;
    this.mean = mean;
    this.next = random(seed);
  }

  /** Put the cutter in front of a connection. */
  wrap(inner: Duplex): Duplex {
    // Mostly short, sometimes long enough for a whole transfer's piece to pass.
    let left =
      this.cuts < this.limit ? Math.ceil(-Math.log(1 - this.next()) * this.mean) : Infinity;
    let cutting = false;
    const cut = (): void => {
      if (outer.destroyed) return;
      this.cuts += 1;
      inner.destroy();
      outer.destroy();
    };
    /** How much of a chunk passes; cuts when it is not all of it. */
    const pass = (chunk: Buffer, forward: (bytes: Buffer) => void): void => {
      if (chunk.length < left) {
        left -= chunk.length;
        forward(chunk);
        return;
      }
      const allowed = chunk.subarray(0, left);
      left = 0;
      if (allowed.length > 0) forward(allowed);
      if (!cutting) setImmediate(cut);
      cutting = true;
    };
    const outer = new Duplex({
      allowHalfOpen: false,
      read: () => void inner.resume(),
      write: (chunk: Buffer, _encoding, done) => {
        pass(chunk, (bytes) => inner.write(bytes));
        if (inner.writableNeedDrain) inner.once("drain", () => done());
        else done();
      },
      destroy: (error, done) => {
        inner.destroy();
        done(error);
      },
    });
    inner.on("data", (chunk: Buffer) => {
      pass(chunk, (bytes) => {
        if (!outer.destroyed && !outer.push(bytes)) inner.pause();
      });
    });
    inner.on("error", () => outer.destroy());
    inner.on("close", () => outer.destroy());
    outer.on("error", () => undefined);
    return outer;
  }
}
