/** Keeping an ephemeral VM: an open connection to the daemon, opened again when it breaks. */
import { setTimeout as sleep } from "node:timers/promises";
import type { VmView } from "../model/api.ts";
import { VmsanError } from "../model/errors.ts";
import type { Daemon } from "./daemon.ts";
import { vmPath } from "./paths.ts";

const RETRY_MS = 100;
/** As long as a restarted daemon waits for owners. */
const GIVE_UP_MS = 10_000;

/** Holds one VM until released. */
export class Hold {
  private readonly daemon: Daemon;
  private vmId: string | undefined;
  private release_: (() => void) | undefined;
  private released = false;

  constructor(daemon: Daemon) {
    this.daemon = daemon;
  }

  /** Which VM the hold is on, once it is known. */
  on(vmId: string): void {
    this.vmId = vmId;
  }

  /** What {@link Daemon.streamed} is given to keep its connection as the hold. */
  readonly options = {
    onHold: (release: () => void): void => {
      this.release_ = release;
      if (this.released) release();
    },
    onHoldLost: (): void => {
      this.release_ = undefined;
      void this.takeAgain();
    },
  };

  /** Open a connection of its own for it. @throws when the VM is gone */
  async take(): Promise<void> {
    if (this.vmId === undefined) return;
    await this.daemon.streamed<VmView>("GET", vmPath(this.vmId, "hold"), this.options);
  }

  /** Let go, once. */
  release(): void {
    this.released = true;
    this.release_?.();
    this.release_ = undefined;
  }

  /** After the daemon went away: claim the VM from the next one. */
  private async takeAgain(): Promise<void> {
    const deadline = Date.now() + GIVE_UP_MS;
    while (!this.released && this.vmId !== undefined && Date.now() < deadline) {
      try {
        await this.take();
        return;
      } catch (error) {
        // The VM is gone: whoever uses it meets that error where it matters.
        if (error instanceof VmsanError && error.code === "ERR_VM_NOT_FOUND") return;
        await sleep(RETRY_MS);
      }
    }
  }
}
