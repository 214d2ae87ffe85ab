/** What a client types, on its way to a command. */
import type { Duplex, Writable } from "node:stream";

/** The keys that leave a terminal: ctrl-p ctrl-q. */
const DEFAULT_KEYS = Buffer.from([16, 17]);

/** `ctrl-a`, `a`, and lists of those, as bytes; empty: the default ones. */
export function parseDetachKeys(text: string): Buffer {
  const bytes: number[] = [];
  for (const key of text.split(",").filter((part) => part !== "")) {
    const control = /^ctrl-([a-z@[\\\]^_])$/.exec(key)?.[1];
    if (control !== undefined) bytes.push(control.toUpperCase().charCodeAt(0) - 64);
    else if (key.length === 1) bytes.push(key.charCodeAt(0));
    else return DEFAULT_KEYS;
  }
  return bytes.length === 0 ? DEFAULT_KEYS : Buffer.from(bytes);
}

/** Finds the keys that leave, also over several pieces; keeps back what may be their beginning. */
export class DetachScanner {
  private readonly keys: Buffer;
  private held = 0;

  constructor(keys: Buffer) {
    this.keys = keys;
  }

  /** What of a piece goes on, and whether the keys have come. */
  scan(bytes: Buffer): { rest: Buffer; left: boolean } {
    const out: number[] = [];
    for (const byte of bytes) {
      if (byte === this.keys[this.held]) {
        this.held += 1;
        if (this.held === this.keys.length) return { rest: Buffer.from(out), left: true };
        continue;
      }
      out.push(...this.keys.subarray(0, this.held));
      this.held = byte === this.keys[0] ? 1 : 0;
      if (this.held === 0) out.push(byte);
    }
    return { rest: Buffer.from(out), left: false };
  }
}

/** How input is handed on. */
export interface InputOptions {
  /** Where there is a terminal: the keys that leave it. */
  keys?: Buffer;
  /** The client's end of input is the command's. */
  once: boolean;
  /** The keys were pressed. */
  onLeave: () => void;
}

/** Hand on what a client sends to a command's input, as fast as that takes it. */
export function pumpInput(from: Duplex, to: Writable, { keys, once, onLeave }: InputOptions): void {
  const scanner = keys === undefined ? undefined : new DetachScanner(keys);
  // A command that does not read its input is its own affair; its status tells.
  to.on("error", () => undefined);
  from.on("data", (chunk: Buffer) => {
    const { rest, left } = scanner?.scan(chunk) ?? { rest: chunk, left: false };
    if (left) onLeave();
    if (rest.length === 0 || !to.writable) return;
    if (to.write(rest)) return;
    from.pause();
    const go = (): void => {
      to.off("drain", go);
      to.off("close", go);
      from.resume();
    };
    to.on("drain", go);
    to.on("close", go);
  });
  from.on("end", () => {
    if (once && to.writable) to.end();
  });
}
