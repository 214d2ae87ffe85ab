/** Connections of ssh over the agent's channel. */
import { startStream } from "../../agent/streams.ts";
import type { GuestStream, StreamOptions } from "../../agent/streams.ts";
import type { StreamSpec } from "../../agent/spec.ts";
import type { GuestTransport } from "../../agent/transport.ts";
import { VmsanError } from "../../model/errors.ts";

/** How often a guest may turn out to have started anew meanwhile. */
const ATTEMPTS = 3;

/** Have the guest made ready, then connect; a VM that sleeps is woken. */
export async function connectSsh(
  prepare: () => Promise<unknown>,
  transport: GuestTransport,
  spec: StreamSpec,
  io: StreamOptions,
): Promise<GuestStream> {
  for (let attempt = 1; ; attempt += 1) {
    await prepare();
    const stream = startStream(transport, spec, io);
    try {
      await stream.started;
      return stream;
    } catch (error) {
      const anew = error instanceof VmsanError && error.code === "ERR_AGENT_SSH";
      if (!anew || attempt === ATTEMPTS) throw error;
    }
  }
}
