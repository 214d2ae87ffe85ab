/** Archives that clients upload for the COPY steps of a build: kept by their project and hash, for a while. */
import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { dirname, join } from "node:path";
import { pipeline as pipe } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { errnoOf } from "../../../model/errors.ts";
import type { GatewayKey } from "../../../model/gateway.ts";
import { syncDirectory, temporarySibling } from "../../../util/atomic.ts";
import type { Tokens } from "../../access/tokens.ts";
import { E2bError } from "../errors.ts";

/** Most bytes of one archive, of a project's, and of all of them. */
const MAX_BYTES = 4 * 2 ** 30;
const MAX_PROJECT = 8 * 2 ** 30;
const MAX_TOTAL = 20 * 2 ** 30;
/** How long a URL can be used, and how long an archive that no build uses is kept, in milliseconds. */
const URL_MS = 3_600_000;
const KEPT_MS = 7 * 24 * 3_600_000;
/** An upload of a process that was killed is taken away after so long, in milliseconds. */
const BROKEN_MS = 24 * 3_600_000;

const CHUNK = 256 << 10;

const HASH = /^[0-9a-f]{64}$/;
const PATH = /^\/e2b\/uploads\/([0-9a-f]{64})(?:\?|$)/;

/** Whether a request is an upload's. */
export function isUpload(request: IncomingMessage): boolean {
  return PATH.test(request.url ?? "");
}

/** The archives of one gateway. */
export class Uploads {
  private readonly directory: string;
  private readonly tokens: Tokens;
  /** Bytes that are coming in, by project. */
  private readonly receiving = new Map<string, number>();

  /** @param directory absolute path of the gateway's files */
  constructor(directory: string, tokens: Tokens) {
    this.directory = join(directory, "uploads");
    this.tokens = tokens;
  }

  /** The name of an archive on disk: nothing that a client chose. @throws invalid_argument */
  private name(project: string, hash: string): string {
    if (!HASH.test(hash)) throw new E2bError("invalid_argument", "the hash is not 64 hex digits");
    return createHash("sha256").update(`${project}\0${hash}`).digest("hex");
  }

  /** Where a project's archives are. */
  private place(project: string): string {
    return join(this.directory, createHash("sha256").update(project).digest("hex"));
  }

  /** Whether an archive is there; a build that asks keeps it. */
  async has(project: string, hash: string): Promise<boolean> {
    const now = new Date();
    try {
      await utimes(join(this.place(project), this.name(project, hash)), now, now);
      return true;
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      return false;
    }
  }

  /** Where a key's client may put an archive for an hour without showing it. @param origin `http://HOST` of this gateway */
  url(origin: string, key: Pick<GatewayKey, "id" | "project">, hash: string): string {
    const name = this.name(key.project, hash);
    const expires = String(Date.now() + URL_MS);
    const signature = this.tokens.of(key, "upload", `${name} ${expires}`);
    return `${origin}/e2b/uploads/${name}?expires=${expires}&signature=${signature}`;
  }

  /** Take an upload. @throws unauthenticated, invalid_argument, resource_exhausted */
  async receive(request: IncomingMessage, query: URLSearchParams): Promise<void> {
    const [, name = ""] = PATH.exec(request.url ?? "") ?? [];
    const expires = query.get("expires") ?? "";
    const signature = query.get("signature") ?? "";
    const signer = await this.tokens.bearer(signature, "upload", `${name} ${expires}`);
    if (signer === undefined || !(Number(expires) > Date.now()))
      throw new E2bError("unauthenticated", "the address is not valid, or no longer");
    if (request.method !== "PUT")
      throw new E2bError("unimplemented", "archives are put, and nothing else", 405);
    const declared = Number(request.headers["content-length"] ?? Number.NaN);
    if (!Number.isSafeInteger(declared))
      throw new E2bError("invalid_argument", "the archive's size is not said", 411);
    if (declared > MAX_BYTES)
      throw new E2bError("resource_exhausted", `an archive has at most ${MAX_BYTES} bytes`, 413);
    const { project } = signer;
    const place = this.place(project);
    await mkdir(place, { recursive: true, mode: 0o700 });
    const sizes = await this.clean();
    for (const [coming, bytes] of this.receiving) add(sizes, this.place(coming), bytes);
    const all = [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0);
    // One project's are not to take the place of another's.
    if ((sizes.get(place) ?? 0) + declared > MAX_PROJECT || all + declared > MAX_TOTAL)
      throw new E2bError("resource_exhausted", "there is no room for more archives", 507);
    add(this.receiving, project, declared);
    try {
      await this.keep(request, join(place, name));
    } finally {
      add(this.receiving, project, -declared);
    }
  }

  private async keep(request: IncomingMessage, path: string): Promise<void> {
    const aside = temporarySibling(path);
    try {
      await pipeline(request, createWriteStream(aside, { mode: 0o600, flags: "wx", flush: true }));
      await rename(aside, path);
      await syncDirectory(dirname(path));
    } catch (error) {
      await rm(aside, { force: true });
      throw error;
    }
  }

  /** Take away what nobody has used for long. @returns bytes of what is left, by directory */
  private async clean(): Promise<Map<string, number>> {
    const sizes = new Map<string, number>();
    for (const entry of await readdir(this.directory, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const path = join(entry.parentPath, entry.name);
      // Another cleaner may have been first.
      const found = await stat(path).catch(() => undefined);
      if (found === undefined) continue;
      const limit = HASH.test(entry.name) ? KEPT_MS : BROKEN_MS;
      if (Date.now() - found.mtimeMs > limit) await rm(path, { force: true });
      else add(sizes, entry.parentPath, found.size);
    }
    return sizes;
  }

  /** The tar archive that was uploaded, unzipped. @throws not_found */
  async open(project: string, hash: string): Promise<AsyncIterable<Buffer>> {
    const path = join(this.place(project), this.name(project, hash));
    const magic = Buffer.alloc(2);
    try {
      const file = await open(path);
      try {
        await file.read(magic, 0, 2, 0);
      } finally {
        await file.close();
      }
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      throw new E2bError("not_found", "the files of this step were not uploaded");
    }
    const zipped = magic[0] === 0x1f && magic[1] === 0x8b;
    const content = createReadStream(path, { highWaterMark: CHUNK });
    if (!zipped) return content;
    // The reader of the last part is told of a failure in either.
    return pipe(content, createGunzip({ chunkSize: CHUNK }), () => undefined);
  }
}

/** Count something under a name. */
function add(counts: Map<string, number>, name: string, more: number): void {
  counts.set(name, (counts.get(name) ?? 0) + more);
}
