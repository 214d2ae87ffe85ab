/** The face of Docker's Engine API. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import type { Face } from "../http/server.ts";
import type { Log } from "../../util/log.ts";
import type { Engine } from "./engine.ts";
import { DockerError, asDockerError } from "./errors.ts";
import { acceptSocket, isSocketRequest } from "../http/websocket.ts";
import { Query } from "./http/route.ts";
import type { Call } from "./http/route.ts";
import {
  acceptHttp2,
  decoded,
  plainHijack,
  refuseUpgrade,
  sendError,
  upgradeHijack,
} from "./http/wire.ts";
import type { Hijack } from "./http/wire.ts";
import { routeFor } from "./routes/all.ts";

/** Pages of browsers send where they are from; the engine's clients do not. */
function refusePages(request: IncomingMessage): void {
  const { origin, "sec-fetch-site": site } = request.headers;
  if (origin === undefined && site === undefined) return;
  throw new DockerError(403, "this engine does not answer web pages");
}

/** Find the route of a request and run it. @throws 404 */
async function answer(
  engine: Engine,
  request: IncomingMessage,
  response: ServerResponse | undefined,
  connection: Pick<Call, "hijack" | "http2" | "webSocket">,
): Promise<void> {
  refusePages(request);
  const { pathname, searchParams } = new URL(request.url ?? "/", "http://engine");
  const path = pathname.replace(/^\/v\d+\.\d+(?=\/)/, "");
  const found = routeFor(request.method ?? "", path);
  if (found === undefined || (response === undefined && found.route.hijacks !== true)) {
    request.resume();
    throw new DockerError(404, `page not found: ${request.method} ${path.slice(0, 200)}`);
  }
  const params = Object.fromEntries(
    Object.entries(found.params).map(([name, text]) => [name, decoded(text)]),
  );
  const query = new Query(searchParams);
  // Where there is none the route asks for the connection instead.
  await found.route.run({
    engine,
    params,
    query,
    request,
    response: response as ServerResponse,
    ...connection,
  });
}

/** The face. */
export function dockerFace(engine: Engine, log: Log): Face {
  const note = (request: IncomingMessage, error: unknown): void => {
    if (asDockerError(error).status < 500) return;
    log.error(`${request.method} ${(request.url ?? "").split("?", 1)[0]} failed`, error);
  };
  return {
    name: "docker",
    claims: () => true,
    handle: async (request, response) => {
      try {
        await answer(engine, request, response, {
          hijack: async () => await plainHijack(request, response),
          http2: async () => await Promise.reject(new DockerError(400, "this takes Upgrade: h2c")),
          webSocket: async () =>
            await Promise.reject(new DockerError(400, "this takes a WebSocket")),
        });
      } catch (error) {
        note(request, error);
        sendError(response, error);
      }
    },
    upgrade: async (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      let taken = false;
      try {
        const hijack = async (): Promise<Hijack> => {
          const mine = await upgradeHijack(request, socket, head);
          return {
            ...mine,
            accept: (tty) => {
              taken = true;
              return mine.accept(tty);
            },
          };
        };
        const webSocket = async (): Promise<Duplex> => {
          if (!isSocketRequest(request)) throw new DockerError(400, "this takes a WebSocket");
          taken = true;
          return await acceptSocket(request, socket, head);
        };
        const http2 = async (): Promise<Duplex> => {
          taken = true;
          return await Promise.resolve(acceptHttp2(socket, head));
        };
        await answer(engine, request, undefined, { hijack, http2, webSocket });
      } catch (error) {
        note(request, error);
        const { status, message } = asDockerError(error);
        if (taken) socket.destroy();
        else refuseUpgrade(socket, status, { message });
      }
    },
  };
}
