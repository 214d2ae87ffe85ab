/**
 * access/: who may do what through a gateway. Takes keys as clients present them and requests as
 * the faces understand them, gives callers, limits and an audit log; knows no protocol.
 *
 * keys.ts: API keys. Only a hash of each is kept; the file is read again whenever it changed, so a
 * key that is taken away is refused at once by every gateway of this directory.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { statSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as z from "zod";
import { VmsanError, errnoOf } from "../../model/errors.ts";
import type { GatewayKey, KeyLimits } from "../../model/gateway.ts";
import { validate, withoutUndefined } from "../../schema/api.ts";
import { writeFileAtomic } from "../../util/atomic.ts";
import { withLock } from "../../util/lock.ts";
import { parseName } from "../../util/names.ts";

/** Most keys of one directory. */
const MAX_KEYS = 10_000;

/**
 * A key is a prefix, 8 hex digits that name it and 40 that are the secret. The prefix says whom it is
 * shown to and means nothing: clients of E2B want their own.
 */
const KEY = /^(?:vmsan_|e2b_)?([0-9a-f]{8})([0-9a-f]{40})$/;

/** Whether a text has the form of a key, valid or not. */
export function isKeyText(text: string): boolean {
  return KEY.test(text);
}

const limitsSchema = z.strictObject({
  vms: z.int().min(0).optional(),
  memMib: z.int().min(0).optional(),
  diskBytes: z.int().min(0).optional(),
  requestsPerSecond: z.int().min(1).optional(),
});

const storedSchema = z.strictObject({
  version: z.literal(1),
  keys: z
    .array(
      z.strictObject({
        id: z.string().regex(/^[0-9a-f]{8}$/),
        name: z.string().max(63),
        project: z.string().max(63),
        admin: z.boolean(),
        hash: z.string().regex(/^[0-9a-f]{64}$/),
        createdAt: z.iso.datetime(),
        expiresAt: z.iso.datetime().optional(),
        limits: limitsSchema,
      }),
    )
    .max(MAX_KEYS),
});

type StoredKey = z.infer<typeof storedSchema>["keys"][number];

/** What a new key may be told. */
export interface NewKey {
  /** For people; default its project. */
  name?: string;
  /** VMs of a project are seen by its keys alone; default `default`. */
  project?: string;
  /** Sees all projects, images and kernels. */
  admin?: boolean;
  /** Milliseconds from now after which it is refused; never when absent. */
  lifetimeMs?: number;
  limits?: KeyLimits;
}

function hashOf(secret: string): Buffer {
  return createHash("sha256").update(secret).digest();
}

/** What may be told of a key: all but its hash. */
function view(stored: StoredKey): GatewayKey {
  const { id, name, project, admin, createdAt, expiresAt } = stored;
  return {
    id,
    name,
    project,
    admin,
    createdAt,
    ...(expiresAt === undefined ? {} : { expiresAt }),
    limits: withoutUndefined(stored.limits) as KeyLimits,
  };
}

/** Whether a key that is kept has not expired. */
function isGood({ expiresAt }: StoredKey): boolean {
  return expiresAt === undefined || Date.parse(expiresAt) > Date.now();
}

/** The keys of one VMSAN_DIR. */
export class Keys {
  private readonly path: string;
  private cached: { stamp: string; keys: StoredKey[] } = { stamp: "", keys: [] };

  /** @param directory absolute path of the gateway's files */
  constructor(directory: string) {
    this.path = join(directory, "keys.json");
  }

  /** Every rename into place gives another inode, so this changes with the content. */
  private stamp(): string {
    try {
      const { ino, mtimeNs, size } = statSync(this.path, { bigint: true });
      return `${ino}.${mtimeNs}.${size}`;
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return "";
      throw error;
    }
  }

  private async load(): Promise<StoredKey[]> {
    const stamp = this.stamp();
    if (stamp === this.cached.stamp) return this.cached.keys;
    const keys =
      stamp === ""
        ? []
        : validate(
            storedSchema,
            JSON.parse(await readFile(this.path, "utf8")),
            `key file ${this.path}`,
            "ERR_GATEWAY_KEYS",
          ).keys;
    this.cached = { stamp, keys };
    return keys;
  }

  private async change<T>(
    body: (keys: StoredKey[]) => { keys: StoredKey[]; result: T },
  ): Promise<T> {
    await mkdir(dirname(this.path), { recursive: true, mode: 0o700 });
    return await withLock(`${this.path}.lock`, async () => {
      const { keys, result } = body(await this.load());
      await writeFileAtomic(this.path, `${JSON.stringify({ version: 1, keys }, null, 2)}\n`);
      return result;
    });
  }

  /**
   * Make a key.
   * @returns what is kept of it, and its text, which is told this once
   */
  async create(wish: NewKey): Promise<{ key: GatewayKey; text: string }> {
    const project = parseName(wish.project ?? "default");
    const id = randomBytes(4).toString("hex");
    const secret = randomBytes(20).toString("hex");
    const now = Date.now();
    const stored: StoredKey = {
      id,
      name: parseName(wish.name ?? project),
      project,
      admin: wish.admin ?? false,
      hash: hashOf(secret).toString("hex"),
      createdAt: new Date(now).toISOString(),
      ...(wish.lifetimeMs === undefined
        ? {}
        : { expiresAt: new Date(now + wish.lifetimeMs).toISOString() }),
      limits: validate(limitsSchema, wish.limits ?? {}, "limits of a key"),
    };
    await this.change((keys) => {
      if (keys.length >= MAX_KEYS) {
        throw new VmsanError({
          code: "ERR_GATEWAY_KEYS",
          message: "Cannot make another key",
          why: `There are ${keys.length}, which is the most.`,
          fix: "Remove those that nobody uses: vmsan key ls, vmsan key rm ID.",
        });
      }
      return { keys: [...keys, stored], result: undefined };
    });
    return { key: view(stored), text: `${id}${secret}` };
  }

  /** All keys, expired ones too. */
  async list(): Promise<GatewayKey[]> {
    return (await this.load()).map(view);
  }

  /** Take a key away, by its ID or its only name. @throws ERR_GATEWAY_KEY_NOT_FOUND */
  async remove(ref: string): Promise<GatewayKey> {
    return await this.change((keys) => {
      const found = keys.filter(({ id, name }) => id === ref || name === ref);
      const [key] = found;
      if (key === undefined || found.length > 1) {
        throw new VmsanError({
          code: "ERR_GATEWAY_KEY_NOT_FOUND",
          message: `Cannot remove the key ${JSON.stringify(ref.slice(0, 80))}`,
          why:
            key === undefined
              ? "No key has this ID or name."
              : `${found.length} keys have this name: ${found.map(({ id }) => id).join(", ")}.`,
          fix: "See vmsan key ls; name it by its ID.",
        });
      }
      return { keys: keys.filter((other) => other !== key), result: view(key) };
    });
  }

  /** The key whose text this is; undefined for any other text, and once it has expired. */
  async find(text: string): Promise<GatewayKey | undefined> {
    const [, id, secret] = KEY.exec(text) ?? [];
    if (id === undefined || secret === undefined) return undefined;
    const key = (await this.load()).find((candidate) => candidate.id === id);
    if (key === undefined) return undefined;
    if (!timingSafeEqual(hashOf(secret), Buffer.from(key.hash, "hex"))) return undefined;
    return isGood(key) ? view(key) : undefined;
  }

  /** All that are good now: neither taken away nor expired. */
  async good(): Promise<GatewayKey[]> {
    return (await this.load()).filter(isGood).map(view);
  }
}
