/** Ports of pods for clients elsewhere: two streams of SPDY/3.1 for each connection, one for data, one for errors. */
import type { Duplex } from "node:stream";
import { joined } from "../../util/flow/joined.ts";
import type { RunningPod } from "../pods/running.ts";
import { SpdyConnection } from "./spdy/connection.ts";
import type { SpdyStream } from "./spdy/connection.ts";
import { wordsOf } from "./words.ts";

/** The one protocol of port forwarding. */
export const PORT_FORWARD = "portforward.k8s.io";

/** How long the second stream of a connection may take to come, in milliseconds. */
const PAIR_MS = 30_000;

/** The streams of one connection as they come. */
interface Pair {
  data?: SpdyStream;
  error?: SpdyStream;
  timer: NodeJS.Timeout;
}

/** Serve a connection that has been agreed upon, until its client leaves. */
export async function forwardPorts(duplex: Duplex, pod: RunningPod): Promise<void> {
  const pairs = new Map<string, Pair>();
  const connection = new SpdyConnection(duplex, (stream) => {
    const { streamtype, port: text = "", requestid = String(stream.id) } = stream.headers;
    const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
    const kind = streamtype === "data" || streamtype === "error" ? streamtype : undefined;
    if (kind === undefined || port < 1 || port > 65_535) {
      stream.destroy();
      return;
    }
    const key = `${port} ${requestid}`;
    const pair = pairs.get(key) ?? { timer: setTimeout(() => giveUp(key), PAIR_MS) };
    if (pair[kind] !== undefined) {
      stream.destroy();
      return;
    }
    pair[kind] = stream;
    pairs.set(key, pair);
    const { data, error, timer } = pair;
    if (data === undefined || error === undefined) return;
    clearTimeout(timer);
    pairs.delete(key);
    void forwardOne(data, error, pod, port);
  });
  const giveUp = (key: string): void => {
    const pair = pairs.get(key);
    pairs.delete(key);
    pair?.data?.destroy();
    pair?.error?.destroy();
  };
  await connection.closed;
  for (const { timer } of pairs.values()) clearTimeout(timer);
}

/** One connection to a port of the guest. */
async function forwardOne(
  data: SpdyStream,
  error: SpdyStream,
  pod: RunningPod,
  port: number,
): Promise<void> {
  // Its client ends its own half at once.
  error.resume();
  try {
    const vm = await pod.guest();
    const guest = await vm.dialLocal(port);
    if (data.destroyed) {
      guest.destroy();
      return;
    }
    // A connection that its client resets is no failure.
    await joined(data, guest);
    error.end();
  } catch (cause) {
    error.end(wordsOf(cause, `Cannot reach port ${port}`));
    data.end();
    data.resume();
  }
}
