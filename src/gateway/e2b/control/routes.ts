/** Every call of the control plane by its method and path; what is not in the table is not answered. */
import type { Caller } from "../../access/gate.ts";
import { E2bError } from "../errors.ts";
import { createVolume, getVolume, listVolumes, removeVolume } from "../volumes/volumes.ts";
import { sandboxLogs } from "./logs.ts";
import type { SandboxControl } from "./sandboxes.ts";
import { createSnapshot, fork, listSnapshots, removeSnapshot } from "./snapshots.ts";
import {
  assignTags,
  beginBuild,
  buildStatus,
  listTags,
  listTemplates,
  makeTemplate,
  placeForFiles,
  removeTags,
  removeTemplate,
} from "./template-calls.ts";
import { templateId } from "./templates.ts";

/** What a call of the control plane answers. */
export interface Answer {
  status: number;
  body?: object;
  headers?: Record<string, string>;
}

/** What a call says. */
export interface Call {
  control: SandboxControl;
  caller: Caller;
  query: URLSearchParams;
  body: () => Promise<object>;
  /** `v2`, `v3`, or none. */
  version: string | undefined;
  /** How the caller reaches this gateway: `http://HOST`. */
  origin: string;
}

/** Answers a call. @param id the word of the path that the route leaves open, if any @param inner a second one */
type Run = (call: Call, id: string, inner: string) => Promise<Answer>;

/** The sandboxes' default time to live on the paths without a version, in seconds. */
const OLD_TIMEOUT_S = 15;

const DONE: Answer = { status: 204 };

/** A page as clients take it. */
function paged({ items, nextToken }: { items: object[]; nextToken?: string }): Answer {
  return {
    status: 200,
    body: items,
    ...(nextToken === undefined ? {} : { headers: { "x-next-token": nextToken } }),
  };
}

/** `METHOD /path`, `:word` for what may be anything; the first that fits counts. */
const TABLE: Record<string, Run> = {
  "POST /sandboxes": async ({ control, caller, body, version }) => {
    const wish = await body();
    const made =
      version === undefined
        ? await control.create(caller, wish, OLD_TIMEOUT_S)
        : await control.create(caller, wish);
    return { status: 201, body: made };
  },
  "GET /sandboxes": async ({ control, caller, query }) => {
    const { sandboxes, ...rest } = await control.list(caller, query);
    return paged({ items: sandboxes, ...rest });
  },
  "GET /sandboxes/metrics": async ({ control, caller, query }) => ({
    status: 200,
    body: await control.metricsOfAll(caller, query),
  }),
  "GET /sandboxes/:sandbox": async ({ control, caller }, id) => ({
    status: 200,
    body: await control.get(caller, id),
  }),
  "DELETE /sandboxes/:sandbox": async ({ control, caller }, id) => {
    await control.kill(caller, id);
    return DONE;
  },
  "POST /sandboxes/:sandbox/timeout": async ({ control, caller, body }, id) => {
    await control.setTimeout(caller, id, await body());
    return DONE;
  },
  "POST /sandboxes/:sandbox/refreshes": async ({ control, caller, body }, id) => {
    await control.prolong(caller, id, await body());
    return DONE;
  },
  "POST /sandboxes/:sandbox/connect": async ({ control, caller, body }, id) => {
    const { resumed, reply } = await control.connect(caller, id, await body());
    return { status: resumed ? 201 : 200, body: reply };
  },
  "POST /sandboxes/:sandbox/resume": async ({ control, caller, body }, id) => {
    const { reply } = await control.connect(caller, id, await body());
    return { status: 201, body: reply };
  },
  "POST /sandboxes/:sandbox/pause": async ({ control, caller, body }, id) => {
    await control.pause(caller, id, await body());
    return DONE;
  },
  "POST /sandboxes/:sandbox/fork": async ({ control, caller, body }, id) => ({
    status: 201,
    body: await fork(control, caller, id, await body()),
  }),
  "POST /sandboxes/:sandbox/snapshots": async ({ control, caller, body }, id) => ({
    status: 201,
    body: await createSnapshot(control, caller, id, await body()),
  }),
  "PUT /sandboxes/:sandbox/network": async ({ control, caller, body }, id) => {
    await control.setNetwork(caller, id, await body());
    return DONE;
  },
  "GET /sandboxes/:sandbox/logs": async ({ control, caller, query, version }, id) => ({
    status: 200,
    body: await sandboxLogs(await control.find(caller, id), query, version),
  }),
  "GET /sandboxes/:sandbox/metrics": async ({ control, caller, query }, id) => ({
    status: 200,
    body: await control.metrics(caller, id, query),
  }),
  "GET /snapshots": async ({ control, caller, query }) =>
    paged(await listSnapshots(control, caller, query)),
  "GET /teams": async ({ caller }) => {
    const { project } = caller.key;
    const team = { teamID: project, name: project, apiKey: "", isDefault: true };
    return await Promise.resolve({ status: 200, body: [team] });
  },
  "GET /templates": async ({ control, caller }) => ({
    status: 200,
    body: await listTemplates(control.context, caller),
  }),
  "POST /templates": async ({ control, caller, body }) => ({
    status: 202,
    body: await makeTemplate(control.context, caller, await body()),
  }),
  "POST /templates/tags": async ({ control, caller, body }) => ({
    status: 201,
    body: await assignTags(control.context, caller, await body()),
  }),
  "DELETE /templates/tags": async ({ control, caller, body }) => {
    await removeTags(control.context, caller, await body());
    return DONE;
  },
  "GET /templates/aliases/:template": async ({ control, caller }, name) => {
    const templateID = await templateId(control.context.store, caller, name);
    return { status: 200, body: { templateID, public: false } };
  },
  "DELETE /templates/:template": async ({ control, caller }, id) => {
    if (await removeSnapshot(control, caller, id)) return DONE;
    if (await removeTemplate(control.context, caller, id)) return DONE;
    throw new E2bError("not_found", `template '${id.slice(0, 200)}' not found`);
  },
  "GET /templates/:template/tags": async ({ control, caller }, id) => ({
    status: 200,
    body: await listTags(control.context, caller, id),
  }),
  "GET /templates/:template/files/:hash": async ({ control, caller, origin }, id, hash) => ({
    status: 201,
    body: await placeForFiles(control.context, caller, id, { hash, origin }),
  }),
  "POST /templates/:template/builds/:build": async ({ control, caller, body }, id, build) => {
    await beginBuild(control, caller, { id, build }, body);
    return { status: 202 };
  },
  "GET /templates/:template/builds/:build/status": async (call, id, build) => {
    const { control, caller, query } = call;
    return { status: 200, body: await buildStatus(control, caller, { id, build }, query) };
  },
  "GET /volumes": async ({ control, caller }) => ({
    status: 200,
    body: await listVolumes(control.context, caller),
  }),
  "POST /volumes": async ({ control, caller, body }) => ({
    status: 201,
    body: await createVolume(control.context, caller, await body()),
  }),
  "GET /volumes/:volume": async ({ control, caller }, id) => ({
    status: 200,
    body: await getVolume(control.context, caller, id),
  }),
  "DELETE /volumes/:volume": async ({ control, caller }, id) => {
    await removeVolume(control.context, caller, id);
    return DONE;
  },
};

/** All routes, as in {@link TABLE}: for tests of who may what. */
export const controlRoutes: readonly string[] = Object.keys(TABLE);

const PATTERNS = Object.entries(TABLE).map(([route, run]) => {
  const [method = "", path = ""] = route.split(" ");
  return { method, words: path.slice(1).split("/"), run };
});

/** One part of a path. @throws invalid_argument */
function decodeWord(word: string): string {
  try {
    return decodeURIComponent(word);
  } catch {
    throw new E2bError("invalid_argument", "the path is not percent-encoded UTF-8");
  }
}

/**
 * Answer a call.
 * @param path without its version and its query
 * @throws E2bError
 */
export async function answerCall(method: string, path: string, call: Call): Promise<Answer> {
  // With or without a slash behind it.
  const given = path
    .replace(/^\//, "")
    .replace(/(?<=.)\/$/, "")
    .split("/")
    .map(decodeWord);
  for (const { method: wanted, words, run } of PATTERNS) {
    if (wanted !== method || words.length !== given.length) continue;
    const open: string[] = [];
    const fits = words.every((word, i) => {
      const one = given[i] ?? "";
      if (!word.startsWith(":")) return word === one;
      open.push(one);
      return one !== "";
    });
    const [id = "", inner = ""] = open;
    if (fits) return await run(call, id, inner);
  }
  throw new E2bError("unimplemented", `${method} ${path.slice(0, 200)} is not offered`, 501);
}
