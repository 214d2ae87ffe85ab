/** A connection in the guest as a duplex stream of this process. */
import { Duplex } from "node:stream";
import type { GuestStream } from "./streams.ts";

/** A connection inside the guest; both directions end on their own, as with TCP. */
export class GuestConnection extends Duplex {
  private readonly guest: GuestStream;

  constructor(guest: GuestStream) {
    super({ allowHalfOpen: true });
    this.guest = guest;
    guest.stdout.on("data", (bytes: Buffer) => {
      if (!this.push(bytes)) guest.stdout.pause();
    });
    guest.stdout.on("end", () => this.push(null));
    // A connection that breaks in the guest breaks here.
    guest.exit.catch((error: unknown) => this.destroy(error as Error));
  }

  override _read(): void {
    this.guest.stdout.resume();
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: () => void): void {
    // Input that the peer no longer takes is dropped, as by a socket whose reader has gone.
    this.guest.stdin.write(bytes, () => done());
  }

  override _final(done: () => void): void {
    this.guest.stdin.end(() => done());
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    // Once both directions have ended the guest ends it by itself: there may be input on the way that the peer is to have.
    if (!this.readableEnded || !this.writableFinished) this.guest.signal("SIGKILL", true);
    done(error);
  }
}
