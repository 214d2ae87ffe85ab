/** A VM as this process holds it. */
import type { VmRecord } from "../../model/vm.ts";
import type { LiveGuest } from "../starting/await-guest.ts";
import type { Mutex } from "../../util/flow/mutex.ts";

/** One VM of this process. */
export interface Entry {
  record: VmRecord;
  mutex: Mutex;
  guest?: LiveGuest;
  /** Ends the creation or start that is under way. */
  busy?: AbortController;
  timeout?: NodeJS.Timeout;
  /** Open connections that keep an ephemeral VM. */
  holders: number;
  claim?: NodeJS.Timeout;
  /** When somebody last used it, in milliseconds since the epoch. */
  usedAt?: number;
  /** Processor time of its VMM at the last look for idleness. */
  cpuSeen?: { at: number; ms: number };
  /** From the moment nothing can be done with it any more. */
  removing?: boolean;
  /** Called at its next change of state. */
  watchers: Set<() => void>;
}

/** Where failures without a caller go. */
export interface EventLog {
  info(message: string): void;
  error(message: string, error?: unknown): void;
}
