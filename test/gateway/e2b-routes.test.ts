/**
 * Every route of E2B's protocols by every kind of key and token. The routes are those of the tables that answer, so that none
 * is forgotten here. Guests are processes of this host.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { fakeDaemon } from "../../src/daemon/testing.ts";
import type { FakeDaemon } from "../../src/daemon/testing.ts";
import { Keys } from "../../src/gateway/access/keys.ts";
import type { NewKey } from "../../src/gateway/access/keys.ts";
import { e2bRoutes } from "../../src/gateway/e2b/face.ts";
import { startGateway } from "../../src/gateway/gateway.ts";
import type { ListeningGateway } from "../../src/gateway/http/server.ts";
import { layoutOf } from "../../src/util/paths.ts";

let daemon: FakeDaemon;
let gateway: ListeningGateway;
const key: Record<string, string> = {};

/** What a key has: with the tokens that it was given. */
interface Possessions {
  sandbox: string;
  data: string;
  volume: string;
  content: string;
  template: string;
  build: string;
}
let ours: Possessions;
let theirs: Possessions;

interface Ask {
  key?: string | undefined;
  body?: object;
  headers?: Record<string, string>;
}

async function ask(
  method: string,
  path: string,
  wish: Ask = {},
): Promise<{ status: number; text: string }> {
  const { key: text, body, headers } = wish;
  const reply = await fetch(gateway.url + path, {
    method,
    headers: { ...(text === undefined ? {} : { "x-api-key": text }), ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: reply.status, text: await reply.text() };
}

async function made<T>(path: string, text: string | undefined, body: object): Promise<T> {
  const reply = await ask("POST", path, { key: text, body });
  expect(reply.text).not.toContain('"code"');
  return JSON.parse(reply.text) as T;
}

async function possess(text: string | undefined, name: string): Promise<Possessions> {
  const sandbox = await made<{ sandboxID: string; envdAccessToken: string }>(
    "/v2/sandboxes",
    text,
    { templateID: "base" },
  );
  const volume = await made<{ volumeID: string; token: string }>("/volumes", text, {
    name: "kept",
  });
  const template = await made<{ templateID: string; buildID: string }>("/templates", text, {
    name,
  });
  return {
    sandbox: sandbox.sandboxID,
    data: sandbox.envdAccessToken,
    volume: volume.volumeID,
    content: volume.token,
    template: template.templateID,
    build: template.buildID,
  };
}

beforeAll(async () => {
  daemon = await fakeDaemon();
  gateway = await startGateway({ dir: daemon.dir, listen: "127.0.0.1:0", driver: "fake" });
  const keys = new Keys(layoutOf(daemon.dir).gateway);
  const make = async (name: string, wish: NewKey): Promise<string> => {
    const { key: known, text } = await keys.create(wish);
    key[name] = `e2b_${text}`;
    return known.id;
  };
  await make("ours", { project: "ours" });
  await make("other", { project: "other" });
  await keys.remove(await make("revoked", { project: "ours" }));
  await make("expired", { project: "ours", lifetimeMs: 1 });
  ours = await possess(key["ours"], "mine");
  theirs = await possess(key["other"], "another");
});

afterAll(async () => {
  await gateway?.close();
  await daemon?.close();
});

/** A route's method and path about what somebody has. */
function parts(route: string, { sandbox, volume, template, build }: Possessions): [string, string] {
  const [method = "", path = ""] = route.split(" ");
  const words: Record<string, string> = {
    sandbox,
    volume,
    template,
    build,
    hash: "0".repeat(64),
    name: "0".repeat(64),
  };
  return [method, path.replaceAll(/:(\w+)/g, (_, word: string) => words[word] ?? "MISSING")];
}

/** What fits all routes that want a body. */
const BODY = { timeout: 100, target: "mine:default", name: "mine", tags: ["default"] };

const bodyOf = (method: string): { body?: object } =>
  ["GET", "HEAD"].includes(method) ? {} : { body: BODY };

test("there are routes of every plane", () => {
  expect(Object.values(e2bRoutes).map((routes) => routes.length > 0)).toEqual([
    true,
    true,
    true,
    true,
  ]);
  for (const route of Object.values(e2bRoutes).flat())
    expect(parts(route, ours).join(" ")).not.toMatch(/MISSING|:/);
});

test("none answers who has no key, a wrong, a revoked or an expired one", async () => {
  const kinds = [undefined, "", "x", `e2b_${"0".repeat(48)}`, key["revoked"], key["expired"]];
  const opened: unknown[] = [];
  for (const route of e2bRoutes.control) {
    const [method, path] = parts(route, ours);
    for (const text of kinds) {
      for (const prefix of ["", "/v2"]) {
        const reply = await ask(method, prefix + path, { key: text, ...bodyOf(method) });
        const { code } = JSON.parse(reply.text) as { code: number };
        if (reply.status !== 401 || code !== 401) opened.push([route, prefix, text, reply]);
      }
    }
  }
  // A key is no token: also ours does not open what tokens are for.
  for (const route of e2bRoutes.envd) {
    const [method, path] = parts(route, ours);
    for (const text of [...kinds, key["ours"], theirs.data, ours.content]) {
      for (const named of [true, false]) {
        const reply = await ask(method, `${path}?path=/etc/hostname`, {
          key: text,
          headers: {
            ...(named ? { "e2b-sandbox-id": ours.sandbox, "e2b-sandbox-port": "49983" } : {}),
            ...(text === undefined ? {} : { "x-access-token": text }),
          },
          ...bodyOf(method),
        });
        // Whether a sandbox lives is for everybody who knows its name, and a token without a name means its own sandbox.
        const open = (path === "/health" && named) || (text === theirs.data && !named);
        if (reply.status !== 401 && !open) opened.push([route, text, named, reply]);
        expect(reply.text).not.toContain(ours.sandbox);
      }
    }
  }
  for (const route of e2bRoutes.volumes) {
    const [method, path] = parts(route, ours);
    for (const text of [...kinds, key["ours"], theirs.content, ours.data]) {
      const reply = await ask(method, `${path}?path=/`, {
        headers: text === undefined ? {} : { authorization: `Bearer ${text}` },
        ...bodyOf(method),
      });
      if (reply.status !== 401) opened.push([route, text, reply]);
    }
  }
  for (const route of e2bRoutes.uploads) {
    const [method, path] = parts(route, ours);
    for (const text of ["", "x", ours.data, "0".repeat(56)]) {
      const query = `?expires=9999999999999&signature=${text}`;
      const reply = await ask(method, path + query, { key: key["ours"], ...bodyOf(method) });
      if (reply.status !== 401) opened.push([route, text, reply]);
    }
  }
  expect(opened).toEqual([]);
});

test("another project's key learns nothing by any, and changes nothing", async () => {
  for (const route of e2bRoutes.control.filter(
    (one) => one.includes(":") || one.endsWith("tags"),
  )) {
    const [method, path] = parts(route, ours);
    const reply = await ask(method, path, { key: key["other"], ...bodyOf(method) });
    expect([route, reply.status]).toEqual([route, 404]);
    expect(JSON.parse(reply.text)).toMatchObject({ code: 404 });
  }
  for (const route of e2bRoutes.control.filter((one) => /^GET [^:]*$/.test(one))) {
    const [method, path] = parts(route, ours);
    const { text } = await ask(method, path, { key: key["other"] });
    for (const [what, id] of Object.entries(ours))
      expect([route, what, text.includes(id)]).toEqual([route, what, false]);
  }
  const metrics = `/sandboxes/metrics?sandbox_ids=${theirs.sandbox},${ours.sandbox}`;
  expect((await ask("GET", metrics, { key: key["other"] })).status).toBe(404);
  const target = { target: "ours/mine:default", tags: ["stolen"] };
  expect(
    (await ask("POST", "/templates/tags", { key: key["other"], body: target })).status,
  ).toBeGreaterThanOrEqual(400);
});

test("its own key gets further by each: the routes are there", async () => {
  const closed: unknown[] = [];
  const last = (route: string): number => Number(route.startsWith("DELETE"));
  for (const route of e2bRoutes.control.toSorted((a, b) => last(a) - last(b))) {
    const [method, path] = parts(route, ours);
    const { status, text } = await ask(method, path, { key: key["ours"], ...bodyOf(method) });
    if ([401, 403, 405, 501].includes(status)) closed.push([route, status, text]);
  }
  for (const route of e2bRoutes.volumes.toSorted((a, b) => last(a) - last(b))) {
    const [method, path] = parts(route, theirs);
    const { status, text } = await ask(method, `${path}?path=/`, {
      headers: { authorization: `Bearer ${theirs.content}` },
      ...bodyOf(method),
    });
    if ([401, 403, 405, 501].includes(status)) closed.push([route, status, text]);
  }
  expect(closed).toEqual([]);
});

test("what is not offered says so, other ways to write a path lead nowhere, and a body that is none is refused", async () => {
  const { sandbox, volume, template } = theirs;
  for (const [method, path] of [
    ["PATCH", `/volumes/${volume}`],
    ["GET", "/secrets"],
    ["POST", `/sandboxes/${sandbox}/nothing`],
    ["GET", `/sandboxes//${sandbox}`],
    ["GET", `/sandboxes/${sandbox}/logs/more`],
    ["PATCH", `/templates/${template}`],
    ["GET", `/templates/${template}/constructor`],
    ["GET", "/sandboxes//"],
  ] as const) {
    const { status, text } = await ask(method, path, { key: key["other"] });
    expect([path, status]).toEqual([path, 501]);
    expect(JSON.parse(text)).toMatchObject({ code: 501, message: expect.stringContaining(path) });
  }
  for (const body of [[], "x", { timeout: "1" }, { timeout: -1 }, { timeout: 1e9 }]) {
    const path = `/sandboxes/${sandbox}/timeout`;
    const wish = { key: key["other"], body: body as object };
    expect((await ask("POST", path, wish)).status).toBe(400);
  }
  for (const path of ["/sandboxes/%ff", "/sandboxes/..%2f..%2fetc", "/sandboxes/vm-00000000"]) {
    expect([400, 404]).toContain((await ask("GET", path, { key: key["other"] })).status);
  }
});
