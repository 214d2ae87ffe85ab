/** The face of E2B: routes of the control plane, and the data plane of sandboxes. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Caller, Gate } from "../access/gate.ts";
import { originOf } from "../http/hosts.ts";
import type { Hosts } from "../http/hosts.ts";
import type { Face } from "../http/server.ts";
import { guestPortOf } from "../ports/access.ts";
import { SandboxControl } from "./control/sandboxes.ts";
import type { ControlContext } from "./control/context.ts";
import { sandboxLogs } from "./control/logs.ts";
import type { Waker } from "./control/lifecycle.ts";
import { createSnapshot, fork, listSnapshots, removeSnapshot } from "./control/snapshots.ts";
import {
  assignTags,
  listTemplates,
  makeTemplate,
  removeTags,
  removeTemplate,
  templateCall,
} from "./control/template-calls.ts";
import { templateId } from "./control/templates.ts";
import { readBody, parseObject } from "./envd/connect.ts";
import { isUpload } from "./control/uploads.ts";
import { DataPlane, ENVD_PORT, urlOf } from "./envd/data-plane.ts";
import { isVolumeContent, volumeContent } from "./volumes/content.ts";
import { createVolume, getVolume, listVolumes, removeVolume } from "./volumes/volumes.ts";
import { E2bError, asE2bError } from "./errors.ts";

const CONTROL = /^\/(?:v[23]\/)?(?:sandboxes|templates|snapshots|teams|volumes|secrets)(?:\/|$|\?)/;

/**
 * Whether a request is a call of the control plane. Some of E2B's Python SDKs (2.10, 2.20) send the headers of a
 * sandbox's envd with `connect` too, and have one address for both planes; envd has no such paths.
 */
function isControl(request: IncomingMessage, hosts: Hosts): boolean {
  if (!CONTROL.test(request.url ?? "") || hosts.guestPort(request) !== undefined) return false;
  return (guestPortOf(request, hosts)?.port ?? ENVD_PORT) === ENVD_PORT;
}

/** What a call of the control plane answers. */
interface Answer {
  status: number;
  body?: object;
  headers?: Record<string, string>;
}

/** What a call says besides its path. */
interface Call {
  query: URLSearchParams;
  body: () => Promise<object>;
  /** `v2`, `v3`, or none. */
  version: string | undefined;
  /** How the caller reaches this gateway: `http://HOST`. */
  origin: string;
}

/** The sandboxes' default time to live on the paths without a version, in seconds. */
const OLD_TIMEOUT_S = 15;

/** Calls about one sandbox, by method and the word behind its ID. */
const SANDBOX_CALLS: Record<
  string,
  (control: SandboxControl, caller: Caller, id: string, call: Call) => Promise<Answer>
> = {
  "GET ": async (control, caller, id) => ({ status: 200, body: await control.get(caller, id) }),
  "DELETE ": async (control, caller, id) => {
    await control.kill(caller, id);
    return { status: 204 };
  },
  "POST timeout": async (control, caller, id, { body }) => {
    await control.setTimeout(caller, id, await body());
    return { status: 204 };
  },
  "POST refreshes": async (control, caller, id, { body }) => {
    await control.prolong(caller, id, await body());
    return { status: 204 };
  },
  "POST connect": async (control, caller, id, { body }) => {
    const { resumed, reply } = await control.connect(caller, id, await body());
    return { status: resumed ? 201 : 200, body: reply };
  },
  "POST resume": async (control, caller, id, { body }) => {
    const { reply } = await control.connect(caller, id, await body());
    return { status: 201, body: reply };
  },
  "POST pause": async (control, caller, id, { body }) => {
    await control.pause(caller, id, await body());
    return { status: 204 };
  },
  "POST fork": async (control, caller, id, { body }) => ({
    status: 201,
    body: await fork(control, caller, id, await body()),
  }),
  "POST snapshots": async (control, caller, id, { body }) => ({
    status: 201,
    body: await createSnapshot(control, caller, id, await body()),
  }),
  "PUT network": async (control, caller, id, { body }) => {
    await control.setNetwork(caller, id, await body());
    return { status: 204 };
  },
  "GET logs": async (control, caller, id, { query, version }) => ({
    status: 200,
    body: await sandboxLogs(await control.find(caller, id), query, version),
  }),
  "GET metrics": async (control, caller, id, { query }) => ({
    status: 200,
    body: await control.metrics(caller, id, query),
  }),
};

/** Calls about one volume, by method. */
const VOLUME_CALLS: Record<
  string,
  (control: SandboxControl, caller: Caller, id: string) => Promise<Answer>
> = {
  GET: async ({ context }, caller, id) => ({
    status: 200,
    body: await getVolume(context, caller, id),
  }),
  DELETE: async ({ context }, caller, id) => {
    await removeVolume(context, caller, id);
    return { status: 204 };
  },
};

/** A page as clients take it. */
function paged({ items, nextToken }: { items: object[]; nextToken?: string }): Answer {
  return {
    status: 200,
    body: items,
    ...(nextToken === undefined ? {} : { headers: { "x-next-token": nextToken } }),
  };
}

/** Calls about all sandboxes, snapshots and templates of a key, by method and the path's one word. */
const LIST_CALLS: Record<
  string,
  (control: SandboxControl, caller: Caller, call: Call) => Promise<Answer>
> = {
  "POST sandboxes": async (control, caller, { body, version }) => {
    const wish = await body();
    const made =
      version === undefined
        ? await control.create(caller, wish, OLD_TIMEOUT_S)
        : await control.create(caller, wish);
    return { status: 201, body: made };
  },
  "GET sandboxes": async (control, caller, { query }) => {
    const { sandboxes, ...rest } = await control.list(caller, query);
    return paged({ items: sandboxes, ...rest });
  },
  "GET snapshots": async (control, caller, { query }) =>
    paged(await listSnapshots(control, caller, query)),
  "GET volumes": async ({ context }, caller) => ({
    status: 200,
    body: await listVolumes(context, caller),
  }),
  "POST volumes": async ({ context }, caller, { body }) => ({
    status: 201,
    body: await createVolume(context, caller, await body()),
  }),
  "GET templates": async ({ context }, caller) => ({
    status: 200,
    body: await listTemplates(context, caller),
  }),
  "POST templates": async ({ context }, caller, { body }) => ({
    status: 202,
    body: await makeTemplate(context, caller, await body()),
  }),
  "GET teams": async (_control, { key: { project } }) => {
    const team = { teamID: project, name: project, apiKey: "", isDefault: true };
    return await Promise.resolve({ status: 200, body: [team] });
  },
};

/** All that is routed, as `METHOD /path` with `ID` for a sandbox's: for tests of who may what. */
export const e2bRoutes: readonly string[] = [
  ...Object.keys(LIST_CALLS).map((call) => call.replace(" ", " /")),
  ...Object.keys(SANDBOX_CALLS).map((call) => call.replace(/ (.*)$/, " /sandboxes/ID/$1")),
  ...Object.keys(VOLUME_CALLS).map((method) => `${method} /volumes/VOLUME`),
  "DELETE /templates/ID",
  "GET /templates/aliases/ID",
  "GET /templates/ID/tags",
  "GET /templates/ID/files/0",
  "POST /templates/ID/builds/0",
  "GET /templates/ID/builds/0/status",
  "POST /templates/tags",
  "DELETE /templates/tags",
].map((route) => route.replace(/\/$/, ""));

/** Calls below /templates. @throws E2bError */
async function answerTemplate(
  control: SandboxControl,
  caller: Caller,
  words: { method: string; id: string; rest: readonly string[] },
  call: Call,
): Promise<Answer> {
  const { context, builds } = control;
  const { method, id, rest } = words;
  const [first = ""] = rest;
  switch (`${method} ${id === "aliases" || id === "tags" ? id : ""}`) {
    case "GET aliases": {
      const templateID = await templateId(context.store, caller, first);
      return { status: 200, body: { templateID, public: false } };
    }
    case "POST tags":
      return { status: 201, body: await assignTags(context, caller, await call.body()) };
    case "DELETE tags":
      await removeTags(context, caller, await call.body());
      return { status: 204 };
    case "DELETE ":
      if (first !== "") break;
      if (await removeSnapshot(control, caller, id)) return { status: 204 };
      if (await removeTemplate(context, caller, id)) return { status: 204 };
      throw new E2bError("not_found", `template '${id.slice(0, 200)}' not found`);
    default:
      break;
  }
  return await templateCall(context, builds, caller, words, call);
}

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
  const [area = "", id = "", action = "", ...more] = rest.split("/").map(decodeWord);
  const body = async (): Promise<object> => parseObject(await readBody(request));
  const call: Call = { query: searchParams, body, version, origin: originOf(request) };
  if (id === "") {
    const key = `${method} ${area}`;
    const run = Object.hasOwn(LIST_CALLS, key) ? LIST_CALLS[key] : undefined;
    if (run !== undefined) return await run(control, caller, call);
  } else if (`${method} ${area} ${id} ${action}` === "GET sandboxes metrics ") {
    return { status: 200, body: await control.metricsOfAll(caller, searchParams) };
  } else if (area === "sandboxes" && more.length === 0) {
    const key = `${method} ${action}`;
    const run = Object.hasOwn(SANDBOX_CALLS, key) ? SANDBOX_CALLS[key] : undefined;
    if (run !== undefined) return await run(control, caller, id, call);
  } else if (area === "volumes" && action === "") {
    const run = Object.hasOwn(VOLUME_CALLS, method) ? VOLUME_CALLS[method] : undefined;
    if (run !== undefined) return await run(control, caller, id);
  } else if (area === "templates") {
    return await answerTemplate(control, caller, { method, id, rest: [action, ...more] }, call);
  }
  throw new E2bError("unimplemented", `${method} ${pathname.slice(0, 200)} is not offered`, 501);
}

/** One part of a path. @throws invalid_argument */
function decodeWord(word: string): string {
  try {
    return decodeURIComponent(word);
  } catch {
    throw new E2bError("invalid_argument", "the path is not percent-encoded UTF-8");
  }
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
