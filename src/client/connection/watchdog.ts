/** A daemon that takes connections and says nothing must not be waited for in silence. */
import type { ClientRequest } from "node:http";
import { VmsanError } from "../../model/errors.ts";

/**
 * Milliseconds without an answer after which the server is asked whether it is there at all, and
 * that it has for that: work may take its time, `GET /v1/version` may not.
 */
function patienceMs(): number {
  const given = Number(process.env["VMSAN_DAEMON_PATIENCE"]);
  return (Number.isFinite(given) && given > 0 ? given : 20) * 1000;
}

function silent(server: string): VmsanError {
  return new VmsanError({
    code: "ERR_DAEMON_SILENT",
    message: `The daemon at ${server} does not answer`,
    why: "It takes connections but does not even say its version: it is stopped, or hangs, or its host is out of breath.",
    fix: `See what it does (fuser ${server} names a local one). Ended with kill -9 it loses no VM: the next command starts another.`,
  });
}

/**
 * End a request that has no answer with ERR_DAEMON_SILENT, once its server does not even say its
 * version.
 * @param request the request, or its connection
 * @param probe makes a request for the version that gives up after so many milliseconds
 * @returns to be called once there is an answer
 */
export function watchRequest(
  request: { readonly destroyed: boolean; destroy: (error: Error) => unknown },
  server: string,
  probe: (limitMs: number) => ClientRequest,
): () => void {
  const limit = patienceMs();
  let timer: NodeJS.Timeout;
  let asked: ClientRequest | undefined;
  const wait = (): void => {
    timer = setTimeout(ask, limit);
    timer.unref();
  };
  const ask = (): void => {
    asked = probe(limit);
    asked.on("response", (reply) => {
      reply.resume();
      if (!request.destroyed) wait();
    });
    // The server is gone: the request says so itself.
    asked.on("error", () => undefined);
    asked.on("timeout", () => {
      asked?.destroy();
      request.destroy(silent(server));
    });
    asked.end();
  };
  wait();
  return () => {
    clearTimeout(timer);
    asked?.destroy();
  };
}
