/** One connection to a port in the guest, as a duplex stream of this process. */
import type { Duplex } from "node:stream";
import { GuestConnection } from "./connection.ts";
import { addressOf } from "./ports.ts";
import type { Endpoint } from "./ports.ts";
import { startStream } from "./streams.ts";
import type { StreamOpener } from "./transport.ts";

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
