/** `GET /containerLogs/…`: what a container has printed, and with `follow` what it goes on to print. */
import type { ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { PodLogOptions, RunningPod } from "../pods/running.ts";

/** How long an answer waits for the log's first bytes, or for its refusal, before its status goes out, in milliseconds. */
const FIRST_MS = 100;

/** Send a log. @throws what the log does before its first bytes */
export async function sendLogs(
  response: ServerResponse,
  pod: RunningPod,
  options: PodLogOptions,
): Promise<void> {
  const left = new AbortController();
  response.once("close", () => left.abort(new Error("the client has gone")));
  const pieces = pod.logs({ ...options, signal: left.signal })[Symbol.asyncIterator]();
  const first = pieces.next();
  await Promise.race([first, sleep(FIRST_MS, undefined, { ref: false })]);
  response.writeHead(200, { "content-type": "text/plain", "cache-control": "no-store" });
  response.flushHeaders();
  const all = (async function* rest(): AsyncGenerator<Uint8Array> {
    for (let next = await first; next.done !== true; next = await pieces.next()) yield next.value;
  })();
  try {
    await pipeline(Readable.from(all, { objectMode: true }), response);
  } catch (error) {
    // A client that stops looking is how most logs end.
    if (!left.signal.aborted) throw error;
  } finally {
    await pieces.return?.();
  }
}
