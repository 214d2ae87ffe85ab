/** The face of E2B: routes of the control plane, and the data plane of sandboxes. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Gate } from "../access/gate.ts";
import { originOf } from "../http/hosts.ts";
import type { Hosts } from "../http/hosts.ts";
import type { Face } from "../http/server.ts";
import { guestPortOf } from "../ports/access.ts";
import { SandboxControl } from "./control/sandboxes.ts";
import type { ControlContext } from "./control/context.ts";
import type { Waker } from "./control/lifecycle.ts";
import { answerCall, controlRoutes } from "./control/routes.ts";
import type { Answer } from "./control/routes.ts";
import { readBody, parseObject } from "./envd/connect.ts";
import { isUpload } from "./control/uploads.ts";
import { DataPlane, ENVD_PORT, envdRoutes, urlOf } from "./envd/data-plane.ts";
import { contentRoutes, isVolumeContent, volumeContent } from "./volumes/content.ts";
import { asE2bError } from "./errors.ts";

const CONTROL = /^\/(?:v[23]\/)?(?:sandboxes|templates|snapshots|teams|volumes|secrets)(?:\/|$|\?)/;

/**
 * Whether a request is a call of the control plane. Some of E2B's Python SDKs (2.10, 2.20) send the headers of a
 * sandbox's envd with `connect` too, and have one address for both planes; envd has no such paths.
 */
function isControl(request: IncomingMessage, hosts: Hosts): boolean {
  if (!CONTROL.test(request.url ?? "") || hosts.guestPort(request) !== undefined) return false;
  return (guestPortOf(request, hosts)?.port ?? ENVD_PORT) === ENVD_PORT;
}

/** All routes, by plane, of the tables that answer: for tests of who may what. `:word` may be anything. */
export const e2bRoutes = {
  control: controlRoutes,
  envd: envdRoutes,
  volumes: contentRoutes,
  uploads: ["PUT /e2b/uploads/:name"],
} as const;

/** Route a call. @throws E2bError */
async function answer(
  control: SandboxControl,
  gate: Gate,
  request: IncomingMessage,
): Promise<Answer> {
  const caller = await gate.admit(request);
  const { pathname, searchParams: query } = urlOf(request);
  const [, version, path = ""] = /^(?:\/(v[23]))?(\/.*)$/.exec(pathname) ?? [];
  const body = async (): Promise<object> => parseObject(await readBody(request));
  const origin = originOf(request);
  const call = { control, caller, query, body, version, origin };
  return await answerCall(request.method ?? "", path, call);
}

/** Send an answer of the control plane. */
function send(response: ServerResponse, { status, body, headers }: Answer): void {
  response.writeHead(status, {
    // Clients parse a body of unknown length, even one without a byte.
    ...(body !== undefined
      ? { "content-type": "application/json" }
      : status === 204
        ? {}
        : { "content-length": "0" }),
    ...headers,
  });
  response.end(body === undefined ? undefined : JSON.stringify(body));
}

/** The face. */
export function e2bFace(context: ControlContext, hosts: Hosts, waker: Waker): Face {
  const { gate } = context;
  const control = new SandboxControl(context);
  const dataPlane = new DataPlane(context, hosts, waker);
  const isData = (request: IncomingMessage): boolean =>
    dataPlane.claims(request) && !isControl(request, hosts);
  return {
    name: "e2b",
    claims: (request) =>
      isData(request) ||
      isControl(request, hosts) ||
      (guestPortOf(request, hosts) === undefined &&
        (isUpload(request) || isVolumeContent(request))),
    handle: async (request, response) => {
      response.once("close", () => gate.note(request, "e2b", response.statusCode));
      if (isData(request)) {
        await dataPlane.handle(request, response);
        return;
      }
      try {
        if (isUpload(request)) {
          await context.uploads.receive(request, urlOf(request).searchParams);
          send(response, { status: 200, body: {} });
        } else if (isVolumeContent(request)) {
          const { searchParams } = urlOf(request);
          const content = await volumeContent(context, request, response, searchParams);
          if (content !== undefined) send(response, content);
        } else send(response, await answer(control, gate, request));
      } catch (error) {
        if (response.headersSent) {
          // The rest of what was begun is missing: nobody is to take it for whole.
          response.destroy();
          return;
        }
        const known = asE2bError(error);
        const permanent = known.status === 502 || known.status === 503;
        send(response, {
          status: known.status,
          // Clients look at the code in the body, not at the status alone.
          body: { code: known.status, message: known.message },
          ...(permanent ? { headers: { "should-retry": "false" } } : {}),
        });
      }
    },
  };
}
