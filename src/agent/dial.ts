/** One connection to a port in the guest, as a duplex stream of this process. */
import { Duplex } from "node:stream";
import { addressOf } from "./ports.ts";
import type { Endpoint } from "./ports.ts";
import { startStream } from "./streams.ts";
import type { GuestStream } from "./streams.ts";
import type { StreamOpener } from "./transport.ts";

/** A connection inside the guest; both directions end on their own, as with TCP. */
class GuestConnection extends Duplex {
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
    this.guest.signal("SIGKILL", true);
    done(error);
  }
}

/**
 * Connect to something that listens in the guest, whatever the network policy is.
 * Its directions end on their own, as with TCP: who is done with it ends or destroys it.
 * @throws ERR_AGENT_DIAL when nothing listens there
 */
export async function dialGuest(transport: StreamOpener, remote: Endpoint): Promise<Duplex> {
  const { network } = remote;
  const spec = { kind: "dial" as const, network, address: addressOf(remote), stdin: true };
  const stream = startStream(transport, spec);
  // What goes wrong with the input is the connection's end, which the exit tells.
  stream.stdin.on("error", () => undefined);
  await stream.started;
  return new GuestConnection(stream);
}
