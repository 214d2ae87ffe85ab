/** The face of E2B: routes of the control plane, and the data plane of sandboxes. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Gate } from "../access/gate.ts";
import type { Hosts } from "../http/hosts.ts";
import type { Face } from "../http/server.ts";
import { guestPortOf } from "../ports/access.ts";
import { SandboxControl } from "./control/sandboxes.ts";
import type { ControlContext } from "./control/sandboxes.ts";
import { readBody, parseObject } from "./envd/connect.ts";
import { DataPlane, urlOf } from "./envd/data-plane.ts";
import { E2bError, asE2bError } from "./errors.ts";

const CONTROL = /^\/(?:v[23]\/)?(?:sandboxes|templates|snapshots|teams|volumes|secrets)(?:\/|$|\?)/;

/** What a call of the control plane answers. */
interface Answer {
  status: number;
  body?: object;
  headers?: Record<string, string>;
}

/** The sandboxes' default time to live on the paths without a version, in seconds. */
const OLD_TIMEOUT_S = 15;

/** Route a call. @throws E2bError */
async function answer(
  control: SandboxControl,
  gate: Gate,
  request: IncomingMessage,
): Promise<Answer> {
  const caller = await gate.admit(request);
  const { pathname, searchParams } = urlOf(request);
  const { method = "" } = request;
  const [, version, rest = ""] = /^\/(?:(v[23])\/)?(.*)$/.exec(pathname) ?? [];
  const [area, id = "", action] = rest.split("/").map((word) => decodeURIComponent(word));
  const body = async (): Promise<object> => parseObject(await readBody(request));
  if (area === "sandboxes" && id === "" && method === "POST") {
    const made =
      version === undefined
        ? await control.create(caller, await body(), OLD_TIMEOUT_S)
        : await control.create(caller, await body());
    return { status: 201, body: made };
  }
  if (area === "sandboxes" && id === "" && method === "GET") {
    const { sandboxes, nextToken } = await control.list(caller, searchParams);
    return {
      status: 200,
      body: sandboxes,
      ...(nextToken === undefined ? {} : { headers: { "x-next-token": nextToken } }),
    };
  }
  if (area === "sandboxes" && id !== "") {
    switch (`${method} ${action ?? ""}`) {
      case "GET ":
        return { status: 200, body: await control.get(caller, id) };
      case "DELETE ":
        await control.kill(caller, id);
        return { status: 204 };
      case "POST timeout":
        await control.setTimeout(caller, id, await body());
        return { status: 204 };
      case "POST connect":
      case "POST resume": {
        const { resumed, reply } = await control.connect(caller, id, await body());
        return { status: resumed || action === "resume" ? 201 : 200, body: reply };
      }
      case "POST pause":
        await control.pause(caller, id);
        return { status: 204 };
      default:
        break;
    }
  }
  if (area === "teams" && method === "GET") {
    const { project } = caller.key;
    return { status: 200, body: [{ teamID: project, name: project, apiKey: "", isDefault: true }] };
  }
  throw new E2bError("unimplemented", `${method} ${pathname.slice(0, 200)} is not offered`, 501);
}

/** Send an answer of the control plane. */
function send(response: ServerResponse, { status, body, headers }: Answer): void {
  response.writeHead(status, {
    ...(body === undefined ? {} : { "content-type": "application/json" }),
    ...headers,
  });
  response.end(body === undefined ? undefined : JSON.stringify(body));
}

/** The face. */
export function e2bFace(context: ControlContext, hosts: Hosts): Face {
  const { gate, vmsan } = context;
  const control = new SandboxControl(context);
  const dataPlane = new DataPlane(vmsan, gate, hosts);
  return {
    name: "e2b",
    claims: (request) =>
      dataPlane.claims(request) ||
      (guestPortOf(request, hosts) === undefined && CONTROL.test(request.url ?? "")),
    handle: async (request, response) => {
      response.once("close", () => gate.note(request, "e2b", response.statusCode));
      if (dataPlane.claims(request)) {
        await dataPlane.handle(request, response);
        return;
      }
      try {
        send(response, await answer(control, gate, request));
      } catch (error) {
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
