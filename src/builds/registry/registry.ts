/**
 * What the builder sees of registries, a server of the distribution API on a socket of this host: base images come
 * from the store, which pulls what it lacks with the caller's credentials, and the result goes back the same way,
 * verified. A build sees what lies below its own identifier.
 */
import { createReadStream } from "node:fs";
import { rm, stat } from "node:fs/promises";
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";
import { asVmsanError } from "../../model/errors.ts";
import type { Digest } from "../../model/image.ts";
import { isDigest } from "../../oci/reference.ts";
import type { ContentStore } from "../../oci/images.ts";
import { dropUnread } from "../../util/flow/unread.ts";
import { listenUnix } from "../../util/socket-path.ts";
import { Had } from "./had.ts";
import type { Imports } from "./imports.ts";
import type { Results } from "./results.ts";

/** Repository that the result of a build is pushed to. */
export const RESULT = "result";

/** What one build may fetch and send. */
export interface BuildAccess {
  imports: Imports;
  results: Results;
}

/** A request's place: which build, and what of it. */
interface Target {
  access: BuildAccess;
  /** `hN` of a registry, or {@link RESULT}. */
  place: string;
  repository: string;
  kind: "manifests" | "blobs" | "uploads";
  name: string;
}

/** Answer with a registry's error. */
function refuse(response: ServerResponse, status: number, code: string, message: string): void {
  const body = JSON.stringify({ errors: [{ code, message }] });
  response.writeHead(status, { "content-type": "application/json" }).end(body);
}

/** The server for all builds of a builder. */
export class BuildRegistry {
  readonly #builds = new Map<string, BuildAccess>();
  /** Layers that need not be sent again. The builder asks for them where it had them, by identifiers of builds that have ended. */
  readonly had = new Had();
  readonly #store: ContentStore;
  readonly #path: string;
  #server: Server | undefined;

  /** @param path of its socket */
  constructor(store: ContentStore, path: string) {
    this.#store = store;
    this.#path = path;
  }

  /** Path of the socket. */
  get path(): string {
    return this.#path;
  }

  /** Let a build in. @param id its identifier, which nobody can guess */
  admit(id: string, access: BuildAccess): void {
    this.#builds.set(id, access);
  }

  /** Let a build in no longer. */
  dismiss(id: string): void {
    this.#builds.delete(id);
  }

  /** Begin to serve, if it does not yet. */
  async open(): Promise<void> {
    if (this.#server !== undefined) return;
    const server = createServer((request, response) => {
      dropUnread(request, response);
      this.#handle(request, response).catch((error: unknown) => {
        const known = asVmsanError(error, "The build's registry failed");
        if (response.headersSent) response.destroy();
        else
          refuse(response, statusOf(known.code), "UNKNOWN", `${known.message}: ${known.why ?? ""}`);
      });
    });
    // A layer may take its time on either side.
    server.requestTimeout = 0;
    await rm(this.#path, { force: true });
    await listenUnix(server, this.#path);
    this.#server = server;
  }

  /** End all connections. */
  async close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await rm(this.#path, { force: true });
  }

  /** What a path means; undefined for what is none of a build's. */
  #target(path: string): Target | undefined {
    const match =
      /^\/v2\/([0-9a-f]{32})\/([a-z0-9]+)(?:\/(.+))?\/(manifests|blobs\/uploads|blobs)\/([^/]*)$/.exec(
        path,
      );
    if (match === null) return undefined;
    const [, id = "", place = "", repository = "", kind = "", name = ""] = match;
    const access = this.#builds.get(id);
    if (access === undefined) return undefined;
    const what = kind === "blobs/uploads" ? "uploads" : (kind as "manifests" | "blobs");
    return { access, place, repository, kind: what, name };
  }

  /** Where a blob is that builds of now may name: of a base image that one has asked for, or had before. */
  #known(digest: Digest): string | undefined {
    const builds = [...this.#builds.values()];
    for (const { imports } of builds) {
      const path = imports.blob(digest);
      if (path !== undefined) return path;
    }
    const known = builds.some(({ results }) => results.had.has(digest));
    return known ? this.#store.blobPath(digest) : undefined;
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://registry");
    if (url.pathname === "/v2/" || url.pathname === "/v2") {
      response.writeHead(200, { "docker-distribution-api-version": "registry/2.0" }).end("{}");
      return;
    }
    const target = this.#target(url.pathname);
    if (target === undefined && request.method === "HEAD") {
      const [, name = ""] = /^\/v2\/[0-9a-f]{32}\/.+\/blobs\/([^/]+)$/.exec(url.pathname) ?? [];
      const path = isDigest(name) ? this.#known(name) : undefined;
      const found = path === undefined ? undefined : await stat(path).catch(() => undefined); // ENOENT: removed since
      if (found !== undefined) {
        const headers = { "content-length": found.size, "docker-content-digest": name };
        response.writeHead(200, headers).end();
        return;
      }
    }
    if (target === undefined) {
      refuse(response, 404, "NAME_UNKNOWN", "no such build");
      return;
    }
    const { access, place, kind, name } = target;
    const method = request.method ?? "";
    const reads = method === "GET" || method === "HEAD";
    if (kind === "blobs" && reads && isDigest(name)) {
      await this.#sendBlob(access, name, method, response);
    } else if (kind === "manifests" && reads && place !== RESULT) {
      const found = await access.imports.manifest(place, target.repository, name);
      const headers = {
        "content-type": found.mediaType,
        "content-length": found.bytes.length,
        "docker-content-digest": found.digest,
      };
      response.writeHead(200, headers).end(method === "HEAD" ? undefined : found.bytes);
    } else if (place === RESULT) {
      await access.results.handle(kind, name, url, request, response);
    } else {
      refuse(response, 405, "UNSUPPORTED", "this is for reading alone");
    }
  }

  /** Send a blob that the build knows of, or for HEAD, say that it is there. */
  async #sendBlob(
    access: BuildAccess,
    digest: Digest,
    method: string,
    response: ServerResponse,
  ): Promise<void> {
    const path = access.imports.blob(digest) ?? access.results.blob(digest);
    if (path === undefined) {
      refuse(response, 404, "BLOB_UNKNOWN", "no such blob");
      return;
    }
    const { size } = await stat(path);
    response.writeHead(200, {
      "content-type": "application/octet-stream",
      "content-length": size,
      "docker-content-digest": digest,
    });
    access.results.had.add(digest);
    if (method === "HEAD") response.end();
    else await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), response);
  }

  /** The store that it serves. */
  get store(): ContentStore {
    return this.#store;
  }
}

/** The status that makes buildah say the message, and not ask for credentials. */
function statusOf(code: string): number {
  return code === "ERR_IMAGE_NOT_FOUND" || code === "ERR_IMAGE_NOT_CACHED" ? 404 : 403;
}
