/** How the dashboard's files are handed out, and how `vmsan ui` finds a gateway and makes its key. */
import { mkdtemp, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { request as httpRequest } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { packageRoot } from "../../util/package.ts";
import { Keys } from "../access/keys.ts";
import { Hosts } from "../http/hosts.ts";
import { listen } from "../http/server.ts";
import type { ListeningGateway } from "../http/server.ts";
import { forgetServing, noteServing, whoServes } from "../serving.ts";
import { loadAssets } from "./assets.ts";
import type { Assets } from "./assets.ts";
import { uiFace } from "./face.ts";
import { handOver, writeDoor } from "./handover.ts";

/** Bytes by gzip of everything that a first visit loads, the terminal included. */
const BUDGET = 250_000;

let gateway: ListeningGateway;
let assets: Assets;
let scratch: string;

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "vmsan-ui-"));
  assets = await loadAssets();
  gateway = await listen({
    address: { host: "127.0.0.1", port: 0 },
    hosts: new Hosts([]),
    log: { info: () => undefined, error: () => undefined },
    faces: [uiFace()],
  });
});

afterAll(async () => {
  await gateway?.close();
  await rm(scratch, { recursive: true, force: true });
});

interface Reply {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: Buffer;
}

/** One request with the path as it is: fetch() would tidy it up. */
async function ask(
  path: string,
  options: { method?: string; headers?: Record<string, string> } = {},
): Promise<Reply> {
  return await new Promise((resolve, reject) => {
    const { port } = gateway;
    const request = httpRequest({ host: "127.0.0.1", port, path, agent: false, ...options });
    request.on("error", reject);
    request.on("response", (reply) => {
      const chunks: Buffer[] = [];
      reply.on("data", (chunk: Buffer) => chunks.push(chunk));
      reply.on("end", () =>
        resolve({
          status: reply.statusCode ?? 0,
          headers: reply.headers,
          body: Buffer.concat(chunks),
        }),
      );
    });
    request.end();
  });
}

const scripts = (): string[] => [...assets.keys()].filter((name) => name.endsWith(".js"));

describe("the page", () => {
  test("is there, and the root leads to it", async () => {
    for (const path of ["/", "/ui"]) {
      expect(await ask(path)).toMatchObject({ status: 302, headers: { location: "/ui/" } });
    }
    const { status, headers, body } = await ask("/ui/?x=1");
    expect(status).toBe(200);
    expect(headers["content-type"]).toBe("text/html; charset=utf-8");
    expect(body.toString()).toContain('<div id="app">');
  });

  test("may run its own scripts and styles, reach its own origin, and nothing else", async () => {
    for (const path of ["/ui/", `/ui/${scripts()[0]}`]) {
      const { headers } = await ask(path);
      const policy = String(headers["content-security-policy"]);
      expect(policy).not.toMatch(/unsafe|\*|https?:/);
      expect(policy.split("; ")).toEqual(
        expect.arrayContaining([
          "default-src 'none'",
          "script-src 'self'",
          "style-src 'self'",
          "connect-src 'self'",
          "base-uri 'none'",
          "form-action 'none'",
          "frame-ancestors 'none'",
        ]),
      );
      expect(headers).toMatchObject({
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
      });
    }
  });

  test("names no other origin and holds nothing that the policy forbids", () => {
    const page = assets.get("index.html")?.plain.toString() ?? "";
    const links = [...page.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, link]) => link ?? "");
    expect(links.length).toBe(3);
    for (const link of links) {
      if (!link.startsWith("data:image/svg+xml,")) expect(assets.has(link), link).toBe(true);
    }
    expect(page).not.toMatch(/<style|style="|<script(?! type="module" src=)|\son[a-z]+=/);
    const forbidden = [
      /createElement\("style"\)/,
      /setAttribute\("style"/,
      /\bnew Function\(/,
      /\beval\(/,
    ];
    for (const name of scripts()) {
      const text = assets.get(name)?.plain.toString() ?? "";
      const found = forbidden.filter((pattern) => pattern.test(text)).map(String);
      expect([name, found]).toEqual([name, []]);
    }
  });

  test("never makes elements of text that came from elsewhere", async () => {
    const ui = join(packageRoot, "src/ui");
    const names = (await readdir(ui, { recursive: true })).filter((name) => /\.tsx?$/.test(name));
    expect(names.length).toBeGreaterThan(20);
    for (const name of names) {
      const text = await readFile(join(ui, name), "utf8");
      expect([name, /innerHTML|outerHTML|insertAdjacentHTML|document\.write/i.test(text)]).toEqual([
        name,
        false,
      ]);
    }
  });

  test(`is at most ${BUDGET} bytes by gzip, all scripts and styles together`, () => {
    const sizes = [...assets.values()].map(({ gzip }) => gzip.length);
    const total = sizes.reduce((sum, size) => sum + size, 0);
    expect(total).toBeGreaterThan(10_000);
    expect(total).toBeLessThanOrEqual(BUDGET);
  });
});

describe("its files", () => {
  test("named by content are kept for ever, the page is asked for again", async () => {
    for (const [name, asset] of assets) {
      const { headers, body, status } = await ask(`/ui/${name}`);
      expect(status).toBe(200);
      expect(body.equals(asset.plain)).toBe(true);
      expect(headers["cache-control"]).toBe(
        name === "index.html" ? "no-cache" : "public, max-age=31536000, immutable",
      );
      expect(headers["vary"]).toBe("accept-encoding");
      const again = await ask(`/ui/${name}`, {
        headers: { "if-none-match": String(headers["etag"]) },
      });
      expect([again.status, again.body.length]).toEqual([304, 0]);
    }
    const { headers, body } = await ask("/ui/", { method: "HEAD" });
    expect(body.length).toBe(0);
    expect(Number(headers["content-length"])).toBe(assets.get("index.html")?.plain.length);
  });

  test("are compressed for who takes that", async () => {
    const [name = ""] = scripts();
    for (const [accept, packed] of [
      ["gzip", true],
      ["br, gzip;q=0.5", true],
      ["*", true],
      ["gzip;q=0", false],
      ["gzip; q=0.0", false],
      ["br", false],
      ["gzipped", false],
      ["", false],
    ] as const) {
      const { headers, body } = await ask(`/ui/${name}`, {
        headers: { "accept-encoding": accept },
      });
      expect([accept, headers["content-encoding"]]).toEqual([accept, packed ? "gzip" : undefined]);
      expect((packed ? gunzipSync(body) : body).equals(assets.get(name)?.plain ?? body)).toBe(true);
    }
  });

  test.each([
    "/ui/../package.json",
    "/ui/..%2fpackage.json",
    "/ui/%2e%2e/%2e%2e/etc/passwd",
    "/ui/..\\..\\package.json",
    "/ui//etc/passwd",
    "/ui/./index.html",
    "/ui/index.html/",
    "/ui/index.html%00.js",
    "/ui/INDEX.HTML",
    "/ui/__proto__",
    "/ui/constructor",
    "/ui/main.tsx",
    "/uixyz",
    `/ui/${"a".repeat(10_000)}`,
  ])("a path that names none is 404: %s", async (path) => {
    const { status, body } = await ask(path);
    expect(status).toBe(404);
    expect(body.toString()).toContain("ERR_GATEWAY_ROUTE_NOT_FOUND");
    expect(body.length).toBeLessThan(1000);
  });

  test.each(["POST", "PUT", "DELETE", "OPTIONS"])("cannot be changed by %s", async (method) => {
    expect((await ask("/ui/", { method })).status).toBe(404);
  });
});

describe("vmsan ui", () => {
  test("finds this directory's gateway while its process lives, and no other", async () => {
    const directory = join(scratch, "serving");
    expect(await whoServes(directory)).toBeUndefined();
    await noteServing(directory, "http://127.0.0.1:1");
    expect(await whoServes(directory)).toEqual({ url: "http://127.0.0.1:1", pid: process.pid });
    const path = join(directory, "serving.json");
    const note = JSON.parse(await readFile(path, "utf8")) as { process: { startTime: number } };
    // The same number, another process: somebody else may listen there by now.
    note.process.startTime += 1;
    await writeFile(path, JSON.stringify(note));
    expect(await whoServes(directory)).toBeUndefined();
    await forgetServing(directory);
    await writeFile(path, "{");
    expect(await whoServes(directory)).toBeUndefined();
    await noteServing(directory, "http://127.0.0.1:2");
    await forgetServing(directory);
    expect(await whoServes(directory)).toBeUndefined();
  });

  test("makes a key that ends by itself, in the address's fragment alone", async () => {
    const directory = join(scratch, "keys");
    const keys = new Keys(directory);
    const handed = await handOver(directory, "http://127.0.0.1:7300", { lifetimeMs: 60_000 });
    const url = new URL(handed.link);
    expect([url.pathname, url.search]).toEqual(["/ui/", ""]);
    const text = url.hash.replace("#key=", "");
    const key = await keys.find(text);
    expect(key).toMatchObject({ id: handed.key, admin: true });
    expect(Date.parse(key?.expiresAt ?? "") - Date.now()).toBeLessThanOrEqual(60_000);
    const door = await writeDoor(directory, handed.link);
    const { mode } = await stat(new URL(door));
    expect(mode & 0o777).toBe(0o600);
    expect(await readFile(new URL(door), "utf8")).toContain(handed.link);

    const ofProject = await handOver(directory, "http://127.0.0.1:7300", {
      lifetimeMs: 1,
      project: "ours",
    });
    const [, second] = await keys.list();
    expect(second).toMatchObject({ id: ofProject.key, admin: false, project: "ours" });
    while (Date.now() <= Date.parse(ofProject.expiresAt)) await new Promise(setImmediate);
    await handOver(directory, "http://127.0.0.1:7300", { lifetimeMs: 60_000 });
    const left = (await keys.list()).map(({ id }) => id);
    expect(left).toContain(handed.key);
    expect(left).not.toContain(ofProject.key);
  });
});
