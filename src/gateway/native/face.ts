/** The native face: routes of the table, and raw streams of guests. */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { getRequestListener } from "@hono/node-server";
import type { HttpBindings } from "@hono/node-server";
import { Hono } from "hono";
import { vmPath } from "../../client/paths.ts";
import type { Vm } from "../../client/vm.ts";
import type { Vmsan } from "../../client/vmsan.ts";
import { errorReply, statusOf } from "../../http/reply.ts";
import { PATIENCE_HEADER, patienceOf } from "../../model/api.ts";
import { VmsanError, asVmsanError } from "../../model/errors.ts";
import { joined } from "../../util/flow/joined.ts";
import type { Gate } from "../access/gate.ts";
import type { Face } from "../http/server.ts";
import type { GatewayDriver } from "./bodies.ts";
import { openApiDocument } from "./openapi.ts";
import { ownVm } from "./own-vm.ts";
import { routes } from "./routes.ts";
import { acceptSocket, isSocketRequest, joinSocket, socketKey } from "../http/websocket.ts";

const STREAM_PATH = /^\/v1\/vms\/([a-z0-9][a-z0-9._-]{0,62})(\/v1\/streams(?:\/[0-9a-f]{16})?)$/;

/** Paths of this face. */
const OWN = /^\/(?:v1(?:\/|$)|openapi\.json$|healthz$)/;

type Env = { Bindings: HttpBindings };

/** The app; separate from the server so that its document and its routes can be tested alone. */
function createApp(vmsan: Vmsan, gate: Gate, driver: GatewayDriver): Hono<Env> {
  const app = new Hono<Env>();
  app.onError((error, c) => {
    const reply = errorReply(c, error);
    const retry = error instanceof VmsanError ? error.details?.["retryAfterSeconds"] : undefined;
    if (typeof retry === "number") reply.headers.set("retry-after", String(retry));
    if (reply.status === 401) reply.headers.set("www-authenticate", "Bearer");
    return reply;
  });
  app.notFound((c) =>
    errorReply(
      c,
      new VmsanError({
        code: "ERR_GATEWAY_ROUTE_NOT_FOUND",
        message: `No route ${c.req.method} ${c.req.path.slice(0, 200)}`,
        fix: "See /openapi.json for the routes.",
      }),
    ),
  );
  app.get("/healthz", (c) => c.text("ok\n"));
  app.get("/openapi.json", (c) => c.json(openApiDocument()));
  for (const route of routes) {
    app.on(route.method, route.path, async (c) => {
      const caller = await gate.admit(c.env.incoming);
      if (route.admin === true && !caller.key.admin) {
        throw new VmsanError({
          code: "ERR_GATEWAY_FORBIDDEN",
          message: `Not through this key: ${route.method} ${c.req.path}`,
          why: "It concerns the whole host.",
          fix: "Use a key made with `vmsan key create --admin`.",
        });
      }
      return await route.run({ c, caller, vmsan, gate, driver });
    });
  }
  // Without a key nobody learns which routes there are.
  app.all("/v1/*", async (c) => {
    await gate.admit(c.env.incoming);
    return c.notFound();
  });
  return app;
}

/** The face. */
export function nativeFace(vmsan: Vmsan, gate: Gate, driver: GatewayDriver): Face {
  const listener = getRequestListener(createApp(vmsan, gate, driver).fetch);
  const path = (request: IncomingMessage): string => (request.url ?? "").split("?", 1)[0] ?? "";
  /** The VM's stream that a connection wants to become. */
  const admitStream = async (request: IncomingMessage): Promise<{ vm: Vm; stream: string }> => {
    const browser = isSocketRequest(request);
    const caller = await (browser ? gate.admit(request, socketKey(request)) : gate.admit(request));
    const [, ref, stream] = STREAM_PATH.exec(path(request)) ?? [];
    if (ref === undefined || !(browser || request.headers.upgrade === "vmsan-stream")) {
      throw new VmsanError({
        code: "ERR_GATEWAY_ROUTE_NOT_FOUND",
        message: "No such stream",
        fix: "See protocol/README.md.",
      });
    }
    return { vm: await ownVm(vmsan, caller, ref), stream: stream ?? "" };
  };
  return {
    name: "native",
    claims: (request) => OWN.test(path(request)),
    handle: async (request, response) => {
      response.once("close", () => gate.note(request, "native", response.statusCode));
      await listener(request, response);
    },
    upgrade: async (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      const { vm, stream } = await admitStream(request).catch((error: unknown) => {
        gate.note(request, "native", statusOf(asVmsanError(error, "").code));
        throw error;
      });
      const gone = new AbortController();
      socket.once("close", () => gone.abort());
      const guest = await vmsan.daemon.upgrade(
        vmPath(vm.id) + stream,
        gone.signal,
        patienceOf(request.headers[PATIENCE_HEADER]),
      );
      const browser = isSocketRequest(request);
      gate.note(request, "native", 101, browser ? "WebSocket" : "");
      socket.setMaxListeners(32);
      guest.setMaxListeners(32);
      if (browser) {
        const messages = await acceptSocket(request, socket, head);
        await joinSocket(messages, guest);
        return;
      }
      socket.write(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: vmsan-stream\r\n\r\n",
      );
      if (head.length > 0) socket.unshift(head);
      await joined(socket, guest);
    },
  };
}
