/** The face: `/mcp`. What speaks the protocol is loaded by the first request. */
import type { IncomingMessage } from "node:http";
import { getRequestListener } from "@hono/node-server";
import type { HttpBindings } from "@hono/node-server";
import { VmsanError, asVmsanError } from "../../model/errors.ts";
import type { Gate } from "../access/gate.ts";
import { hostName, originOf } from "../http/hosts.ts";
import type { Hosts } from "../http/hosts.ts";
import type { Face } from "../http/server.ts";
import { statusOf } from "../../http/reply.ts";
import { guestPortOf } from "../ports/access.ts";
import type { McpParts, McpSessions } from "./sessions.ts";

/** A page of another site must not use a key that a browser may hold for this one. */
function checkOrigin(request: IncomingMessage): void {
  const { origin } = request.headers;
  if (origin === undefined) return;
  const name = URL.canParse(origin) ? new URL(origin).hostname.replace(/^\[(.*)\]$/, "$1") : "";
  if (name === hostName(request)) return;
  throw new VmsanError({
    code: "ERR_GATEWAY_FORBIDDEN",
    message: "Not from another site",
    why: `The request's Origin is ${JSON.stringify(origin.slice(0, 200))}.`,
    fix: "Use a client that is no web page.",
  });
}

/** An error as the gateway's other faces tell it. */
function refusal(error: unknown): Response {
  const known = asVmsanError(error, "The request failed");
  const status = statusOf(known.code);
  const retry = known.details?.["retryAfterSeconds"];
  return Response.json(
    { error: known.toJSON() },
    {
      status,
      headers: {
        "cache-control": "no-store",
        ...(status === 401 ? { "www-authenticate": "Bearer" } : {}),
        ...(typeof retry === "number" ? { "retry-after": String(retry) } : {}),
      },
    },
  );
}

/** The face, and what ends its sessions. */
export function mcpFace(
  parts: McpParts & { gate: Gate },
  hosts: Hosts,
): { face: Face; close: () => Promise<void> } {
  let sessions: Promise<McpSessions> | undefined;
  const answer = async (request: Request, incoming: IncomingMessage): Promise<Response> => {
    const caller = await parts.gate.admit(incoming);
    checkOrigin(incoming);
    sessions ??= import("./sessions.ts").then((module) => new module.McpSessions(parts));
    return await (await sessions).answer(request, caller, originOf(incoming));
  };
  const listener = getRequestListener(async (request, env) => {
    try {
      return await answer(request, (env as HttpBindings).incoming);
    } catch (error) {
      return refusal(error);
    }
  });
  return {
    face: {
      name: "mcp",
      claims: (request) =>
        (request.url ?? "").split("?", 1)[0] === "/mcp" &&
        guestPortOf(request, hosts) === undefined,
      handle: async (request, response) => {
        response.once("close", () => parts.gate.note(request, "mcp", response.statusCode));
        await listener(request, response);
      },
    },
    close: async () => await (await sessions)?.close(),
  };
}
