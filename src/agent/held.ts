/**
 * A machine that has booted and waits for its disks: what host and agent say before there is a channel; see
 * protocol/README.md section 12.
 */
import { randomBytes } from "node:crypto";
import type { Duplex } from "node:stream";
import { protocolError } from "./frames.ts";

const HELD = "VMSAN-HELD-1\n";
const GOING = "VMSAN-GOING-1\n";
/** Nothing else is said before these. */
const MAX_LINE = 64;
/** Bytes of the host's randomness that the machine goes on with. */
const SEED_BYTES = 64;

/** Opens the one byte stream to the agent. */
type Open = (signal: AbortSignal) => Promise<Duplex>;

/** Wait until the agent has said a line; nothing may come before it. */
async function hear(stream: Duplex, line: string, signal: AbortSignal): Promise<void> {
  let said = "";
  const aborted = (): void => void stream.destroy(signal.reason as Error);
  signal.addEventListener("abort", aborted, { once: true });
  try {
    signal.throwIfAborted();
    for await (const chunk of stream.iterator({ destroyOnReturn: false })) {
      said += String(chunk);
      if (said === line) return;
      if (said.length > MAX_LINE || !line.startsWith(said)) break;
    }
    signal.throwIfAborted();
    throw protocolError(`a machine that waits for its disks said ${JSON.stringify(said)}`);
  } finally {
    signal.removeEventListener("abort", aborted);
  }
}

/** Speak with the agent on a stream that ends with it. */
async function on(
  open: Open,
  signal: AbortSignal,
  act: (stream: Duplex) => Promise<void>,
): Promise<void> {
  const stream = await open(signal);
  // What breaks ends the reading of it.
  stream.on("error", () => undefined);
  try {
    await act(stream);
  } finally {
    stream.destroy();
  }
}

/**
 * Wait until a machine with blank disks has booted and let go of them.
 * @throws ERR_AGENT_PROTOCOL when it says something else
 */
export async function awaitHeld(open: Open, signal: AbortSignal): Promise<void> {
  await on(open, signal, async (stream) => await hear(stream, HELD, signal));
}

/**
 * Have such a machine go on with the disks that it has now: it takes randomness and the time from here first.
 * @throws ERR_AGENT_PROTOCOL when it says something else
 */
export async function letGo(open: Open, signal: AbortSignal): Promise<void> {
  await on(open, signal, async (stream) => {
    const unixNs = BigInt(Date.now()) * 1_000_000n;
    stream.write(`VMSAN-GO-1 ${unixNs} ${randomBytes(SEED_BYTES).toString("hex")}\n`);
    await hear(stream, GOING, signal);
  });
}
