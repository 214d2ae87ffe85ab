/** This process's own terminal: raw mode, size, and the keys that leave a session. */

/** Put back what was changed. */
export interface RawTerminal {
  restore(): void;
}

/** Rows, columns and kind of the terminal; 24×80 where there is none. */
export function localSize(): { rows: number; cols: number; term: string } {
  const { stdout } = process;
  return {
    rows: stdout.rows || 24,
    cols: stdout.columns || 80,
    term: process.env["TERM"] ?? "xterm-256color",
  };
}

/** Every key goes to the guest; its size follows this terminal's. */
export function rawTerminal(onResize: (rows: number, cols: number) => void): RawTerminal {
  const { stdin, stdout } = process;
  const resized = (): void => onResize(stdout.rows || 24, stdout.columns || 80);
  stdin.setRawMode(true);
  stdout.on("resize", resized);
  resized();
  return {
    restore: () => {
      stdout.off("resize", resized);
      stdin.setRawMode(false);
    },
  };
}

const CTRL_P = 0x10;
const CTRL_Q = 0x11;

/** Finds ctrl-p ctrl-q in what is typed; a ctrl-p that something else follows is passed on. */
export class DetachKeys {
  /** Whether both keys have been typed. */
  detached = false;
  private pending = false;

  /** The bytes to pass on. */
  filter(chunk: Buffer): Buffer {
    const out: number[] = [];
    for (const byte of chunk) {
      if (this.detached) break;
      if (this.pending) {
        this.pending = false;
        if (byte === CTRL_Q) {
          this.detached = true;
          break;
        }
        out.push(CTRL_P);
      }
      if (byte === CTRL_P) this.pending = true;
      else out.push(byte);
    }
    return Buffer.from(out);
  }
}
