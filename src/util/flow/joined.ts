/** Two connections as one. */
import type { Duplex } from "node:stream";

/**
 * Copy both ways, each to its end, until both ends are closed. One that breaks breaks the other. By
 * pipe() and not by pipeline(), which makes an error with its stack whenever a client leaves first.
 */
export async function joined(client: Duplex, guest: Duplex): Promise<void> {
  const closed = ([one, other]: readonly [Duplex, Duplex]): Promise<void> =>
    new Promise((resolve) => {
      one.on("error", () => other.destroy());
      one.once("close", () => {
        if (!one.readableEnded || !one.writableFinished) other.destroy();
        // What it no longer takes is dropped: its sender is not held up, and the end of it is seen.
        else other.resume();
        resolve();
      });
    });
  client.pipe(guest);
  guest.pipe(client);
  // Behind pipe(), whose own end of it pauses what it has read from.
  await Promise.all([[client, guest] as const, [guest, client] as const].map(closed));
}
