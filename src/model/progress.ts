/** What long work says while it runs. */

/** One step of long work; the same on the terminal, in JSON and over the API. */
export interface ProgressEvent {
  /** Phase: `pull`, `build`, `boot`, `exec`, `setup` … */
  phase: string;
  /** What in particular, e.g. a layer's short digest. */
  item?: string;
  message?: string;
  /** Done so far and total, in `unit`. */
  done?: number;
  total?: number;
  unit?: "bytes" | "entries";
}

/** Receives progress; must return quickly and never throw. */
export type ProgressSink = (event: ProgressEvent) => void;
