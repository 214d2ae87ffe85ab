/** The result of a build on its way into the store: blobs by digest, then the manifest. */
import { createReadStream } from "node:fs";
import { randomBytes } from "node:crypto";
import { Transform } from "node:stream";
import type { IncomingMessage, ServerResponse } from "node:http";
import { VmsanError } from "../../model/errors.ts";
import type { Digest } from "../../model/image.ts";
import type { ContentStore, Lease } from "../../oci/images.ts";
import { protectBytes } from "../../oci/archives/archive-file.ts";
import { MANIFEST_LIMIT, parseDocument } from "../../oci/documents/documents.ts";
import { isDigest } from "../../oci/reference.ts";
import { ingest } from "../../oci/store/ingest.ts";
import { collect } from "../../util/flow/collect.ts";
import type { Imports } from "./imports.ts";

/** Most bytes that a build may send: what runs in its VM could send without end. */
const LIMIT = 64 * 2 ** 30;
/** Uploads begun and not ended, at most. */
const OPEN = 64;
/** Blobs and manifests that it may begin with, at most: each is remembered, however small. */
const PIECES = 2000;

/** The manifest that a build has sent. */
export interface SentManifest {
  digest: Digest;
  size: number;
  mediaType: string;
}

/** What one build has sent. */
export class Results {
  readonly #store: ContentStore;
  readonly #lease: Lease;
  readonly #imports: Imports;
  readonly #prefix: string;
  readonly #signal: AbortSignal;
  readonly #blobs = new Set<Digest>();
  /** What has come of each upload; undefined before anything has. */
  readonly #uploads = new Map<string, { digest: Digest; size: number } | undefined>();
  #received = 0;
  #sent = 0;
  #begun = 0;
  /** What builds that belong together with this one have had or sent, this one too. */
  readonly had: Set<Digest>;
  /** The last manifest. */
  manifest: SentManifest | undefined;
  /** Why something could not be stored (a full disk …). */
  failure: unknown;

  /**
   * @param prefix path of the result's repository
   * @param had what is known of builds before that belong to this one; what it sends now is added
   */
  constructor(
    store: ContentStore,
    lease: Lease,
    imports: Imports,
    prefix: string,
    signal: AbortSignal,
    had = new Set<Digest>(),
  ) {
    this.#store = store;
    this.#lease = lease;
    this.#imports = imports;
    this.#prefix = prefix;
    this.#signal = signal;
    this.had = had;
  }

  /** Where a blob is that was sent. */
  blob(digest: Digest): string | undefined {
    return this.#blobs.has(digest) ? this.#store.blobPath(digest) : undefined;
  }

  /** Whether an image, by its configuration's digest, is one of the builds that this one belongs to. */
  mayName(id: string): boolean {
    const digest = id.startsWith("sha256:") ? id : `sha256:${id}`;
    return isDigest(digest) && (this.had.has(digest) || this.#imports.blob(digest) !== undefined);
  }

  /** What had to be sent: the rest was here, or known to be. */
  get sent(): { blobs: number; bytes: number } {
    return { blobs: this.#sent, bytes: this.#received };
  }

  /**
   * Have a blob in the store that is there or used from elsewhere: one of an image that this build has asked for, or of
   * a build that it belongs to. What else the store has, it cannot name. @returns whether it is known
   */
  async #adopt(digest: Digest): Promise<boolean> {
    if (this.#blobs.has(digest)) return true;
    await this.#lease.protect([digest]);
    const path = this.#imports.blob(digest);
    if (path === undefined && !this.had.has(digest)) return false;
    if ((await this.#store.blobSize(digest)) === undefined) {
      // It was removed since.
      if (path === undefined) return false;
      const source = createReadStream(path, { highWaterMark: 1 << 20 });
      const what = `layer ${digest}`;
      await ingest(this.#store, this.#lease, source, { digest }, what, this.#signal);
    }
    this.#blobs.add(digest);
    return true;
  }

  /** Answer a request below the result's repository. */
  async handle(
    kind: "manifests" | "blobs" | "uploads",
    name: string,
    url: URL,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const answer = (status: number, headers: Record<string, string> = {}): void => {
      response.writeHead(status, { "content-length": 0, ...headers }).end();
    };
    try {
      const method = request.method ?? "";
      if (method === "POST" || kind === "manifests") this.#begun += 1;
      if (this.#begun > PIECES) throw tooMuch();
      if (kind === "manifests") {
        if (method !== "PUT") answer(404);
        else answer(201, { "docker-content-digest": await this.#takeManifest(request) });
        return;
      }
      if (kind !== "uploads") {
        answer(404);
        return;
      }
      const digest = url.searchParams.get("digest") ?? url.searchParams.get("mount") ?? "";
      if (method === "POST") {
        if (isDigest(digest) && (await this.#adopt(digest))) {
          answer(201, {
            location: `${this.#prefix}/blobs/${digest}`,
            "docker-content-digest": digest,
          });
          return;
        }
        if (this.#uploads.size >= OPEN) throw tooMuch();
        const id = randomBytes(16).toString("hex");
        this.#uploads.set(id, undefined);
        answer(202, { location: `${this.#prefix}/blobs/uploads/${id}`, range: "0-0" });
        return;
      }
      if (!this.#uploads.has(name)) {
        answer(404);
        return;
      }
      await this.#continue(method, name, digest, request, answer);
    } catch (error) {
      this.failure ??= error;
      throw error;
    }
  }

  /** An upload that has begun. */
  async #continue(
    method: string,
    id: string,
    digest: string,
    request: IncomingMessage,
    answer: (status: number, headers?: Record<string, string>) => void,
  ): Promise<void> {
    const location = `${this.#prefix}/blobs/uploads/${id}`;
    if (method === "DELETE") {
      this.#uploads.delete(id);
      answer(204);
      return;
    }
    let come = this.#uploads.get(id);
    const hasBody =
      Number(request.headers["content-length"] ?? 0) > 0 ||
      request.headers["transfer-encoding"] !== undefined;
    if (hasBody && (method === "PATCH" || method === "PUT")) {
      if (come !== undefined) {
        // buildah sends a blob in one request; pieces would have to be put together.
        answer(416, { location, range: `0-${come.size - 1}` });
        return;
      }
      come = await this.#takeBlob(request);
      this.#uploads.set(id, come);
    }
    if (method === "PATCH") {
      answer(202, { location, range: `0-${Math.max(0, (come?.size ?? 0) - 1)}` });
      return;
    }
    if (method !== "PUT" || come === undefined || come.digest !== digest) {
      answer(400);
      return;
    }
    this.#uploads.delete(id);
    this.#blobs.add(come.digest);
    this.had.add(come.digest);
    this.#sent += 1;
    answer(201, { location: `${this.#prefix}/blobs/${digest}`, "docker-content-digest": digest });
  }

  /** Store a body under its digest. */
  async #takeBlob(request: IncomingMessage): Promise<{ digest: Digest; size: number }> {
    const counted = new Transform({
      transform: (chunk: Buffer, _encoding, done) => {
        this.#received += chunk.length;
        if (this.#received > LIMIT) done(tooMuch());
        else done(null, chunk);
      },
    });
    request.on("error", (error) => counted.destroy(error));
    request.on("close", () => {
      if (!request.complete) counted.destroy(new Error("the builder went away in the middle"));
    });
    request.pipe(counted);
    const what = "a layer of the build";
    return await ingest(this.#store, this.#lease, counted, {}, what, this.#signal);
  }

  /** Store the manifest; everything that it names must be here. */
  async #takeManifest(request: IncomingMessage): Promise<Digest> {
    const bytes = await collect(request, MANIFEST_LIMIT, tooMuch);
    const type = request.headers["content-type"];
    const document = parseDocument(bytes, type, "the build's result");
    if (document.kind === "index") throw badResult("It is an index.");
    const { config, layers } = document.manifest;
    for (const { digest } of [config, ...layers]) {
      if (!(await this.#adopt(digest))) throw badResult(`It names ${digest}, which was not sent.`);
    }
    const digest = await protectBytes(bytes, this.#store, this.#lease);
    this.manifest = { digest, size: bytes.length, mediaType: type ?? "" };
    return digest;
  }
}

/** The error for a build that sends without end. */
function tooMuch(): VmsanError {
  return new VmsanError({
    code: "ERR_BUILD_RESULT",
    message: "Cannot take the result of the build",
    why: `It is larger than ${LIMIT / 2 ** 30} GiB, or in too many pieces.`,
    fix: "Make the image smaller.",
  });
}

/** The error for a result that is none. */
function badResult(why: string): VmsanError {
  return new VmsanError({
    code: "ERR_BUILD_RESULT",
    message: "Cannot take the result of the build",
    why,
    fix: "Build again; `vmsan build prune` makes a new builder.",
  });
}
