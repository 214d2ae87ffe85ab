/** The face that hands out the dashboard: files from memory, by their exact names. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { VmsanError } from "../../model/errors.ts";
import type { Face } from "../http/server.ts";
import { loadAssets } from "./assets.ts";
import type { Asset, Assets } from "./assets.ts";

/** Where it is. */
const BASE = "/ui/";

/** Scripts and styles of this origin's own files and nothing else; the page stands in no frame. */
const UI_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data: blob:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

const HEADERS = {
  "content-security-policy": UI_POLICY,
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "x-frame-options": "DENY",
};

const pathOf = (request: IncomingMessage): string => (request.url ?? "").split("?", 1)[0] ?? "";

/** Whether a request's Accept-Encoding takes gzip. */
function takesGzip(request: IncomingMessage): boolean {
  const accepted = (request.headers["accept-encoding"] ?? "").toLowerCase();
  return accepted
    .split(",")
    .some((part) => /^\s*(?:gzip|\*)\s*(?:;\s*q=(?!0(?:\.0*)?\s*$).*)?$/.test(part));
}

function send(request: IncomingMessage, response: ServerResponse, asset: Asset): void {
  const packed = takesGzip(request);
  const etag = packed ? asset.etag.replace(/"$/, '-gz"') : asset.etag;
  const headers = {
    ...HEADERS,
    etag,
    vary: "accept-encoding",
    "cache-control": asset.lasting ? "public, max-age=31536000, immutable" : "no-cache",
  };
  if (request.headers["if-none-match"] === etag) {
    response.writeHead(304, headers).end();
    return;
  }
  const body = packed ? asset.gzip : asset.plain;
  response.writeHead(200, {
    ...headers,
    "content-type": asset.type,
    "content-length": body.length,
    ...(packed ? { "content-encoding": "gzip" } : {}),
  });
  response.end(request.method === "HEAD" ? undefined : body);
}

/**
 * The face.
 * @param assets gives the files; asked once somebody wants one, and again after it has failed
 */
export function uiFace(assets: () => Promise<Assets> = loadAssets): Face {
  let loaded: Promise<Assets> | undefined;
  return {
    name: "ui",
    claims: (request) =>
      (request.method === "GET" || request.method === "HEAD") &&
      (/^\/ui(?:\/|$)/.test(pathOf(request)) || pathOf(request) === "/"),
    handle: async (request, response) => {
      const path = pathOf(request);
      if (path === "/" || path === "/ui") {
        response.writeHead(302, { ...HEADERS, location: BASE, "cache-control": "no-cache" }).end();
        return;
      }
      loaded ??= assets().catch((error: unknown) => {
        loaded = undefined;
        throw error;
      });
      const name = path.slice(BASE.length);
      const asset = (await loaded).get(name === "" ? "index.html" : name);
      if (asset === undefined) {
        throw new VmsanError({
          code: "ERR_GATEWAY_ROUTE_NOT_FOUND",
          message: `The dashboard has no file ${path.slice(0, 200)}`,
          fix: `Open ${BASE}.`,
        });
      }
      send(request, response, asset);
    },
  };
}
