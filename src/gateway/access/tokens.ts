/**
 * Tokens by which their bearer uses one thing in the name of a key: a VM's data plane, its ports, a volume. Made from the gateway's
 * secret, the key's ID and the thing, so that a gateway that was replaced knows them all and keeps none; each dies with
 * its key.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { VmsanError, errnoOf } from "../../model/errors.ts";
import type { GatewayKey } from "../../model/gateway.ts";
import { writeFileAtomic } from "../../util/atomic.ts";
import { withLock } from "../../util/lock.ts";
import type { Keys } from "./keys.ts";

/** What a token is for; another purpose is another token. */
export type TokenPurpose = "data" | "traffic" | "upload" | "volume";

const SECRET = /^[0-9a-f]{64}$/;
/** The key's ID, and the proof that the gateway gave it. */
const TOKEN = /^([0-9a-f]{8})([0-9a-f]{48})$/;
/** Most tokens that are remembered, so that signatures by any of them are looked at quickly. */
const MAX_REMEMBERED = 20_000;

/** Makes and checks tokens. */
export class Tokens {
  private readonly secret: string;
  private readonly keys: Pick<Keys, "good">;
  private readonly remembered = new Map<string, string>();

  /** @param secret 64 hex digits */
  constructor(secret: string, keys: Pick<Keys, "good">) {
    this.secret = secret;
    this.keys = keys;
  }

  /** The token of a key for one thing. @param subject names it for ever: a VM's ID; one made later has another */
  of({ id }: Pick<GatewayKey, "id">, purpose: TokenPurpose, subject: string): string {
    const proof = createHmac("sha256", this.secret).update(`${purpose}\0${id}\0${subject}`);
    return id + proof.digest("hex").slice(0, 48);
  }

  /** The key in whose name a text could be a token, as it says itself; undefined for what is none, and once the key is not good any more. */
  async holder(text: string): Promise<GatewayKey | undefined> {
    const [, id] = TOKEN.exec(text) ?? [];
    if (id === undefined) return undefined;
    return (await this.keys.good()).find((candidate) => candidate.id === id);
  }

  /** Whose token for this thing a text is; undefined for any other text, and once the key is not good any more. */
  async bearer(
    text: string,
    purpose: TokenPurpose,
    subject: string,
  ): Promise<GatewayKey | undefined> {
    const key = await this.holder(text);
    if (key === undefined) return undefined;
    const right = Buffer.from(this.of(key, purpose, subject));
    return timingSafeEqual(right, Buffer.from(text)) ? key : undefined;
  }

  /**
   * Whose token for which of several things meets a condition, for proofs that were made with a token and do not show it.
   * @param subjects that are there, since their tokens are remembered
   * @param may whether a key may use one: only of those is it tried, as anybody may send what is no proof
   */
  async whose<S extends { id: string }>(
    purpose: TokenPurpose,
    subjects: readonly S[],
    may: (key: GatewayKey, subject: S) => boolean,
    isMeant: (token: string) => boolean,
  ): Promise<{ key: GatewayKey; subject: S } | undefined> {
    const keys = await this.keys.good();
    for (const subject of subjects) {
      for (const key of keys) {
        if (may(key, subject) && isMeant(this.remember(key, purpose, subject.id)))
          return { key, subject };
      }
    }
    return undefined;
  }

  private remember(key: GatewayKey, purpose: TokenPurpose, subject: string): string {
    const name = `${purpose} ${key.id} ${subject}`;
    let token = this.remembered.get(name);
    if (token === undefined) {
      token = this.of(key, purpose, subject);
      if (this.remembered.size >= MAX_REMEMBERED) this.remembered.clear();
      this.remembered.set(name, token);
    }
    return token;
  }
}

/** Read the gateway's secret, made on first use. @param directory absolute, of the gateway's files */
export async function loadTokens(directory: string, keys: Keys): Promise<Tokens> {
  const path = join(directory, "secret");
  await mkdir(directory, { recursive: true, mode: 0o700 });
  return await withLock(`${path}.lock`, async () => {
    try {
      const text = (await readFile(path, "utf8")).trim();
      if (SECRET.test(text)) return new Tokens(text, keys);
      throw new VmsanError({
        code: "ERR_GATEWAY_SECRET",
        message: `Cannot use the gateway's secret in ${path}`,
        why: "It is not 64 hex digits.",
        fix: "Remove the file: a new one is made, and clients get new tokens when they connect again.",
      });
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
    }
    const secret = randomBytes(32).toString("hex");
    await writeFileAtomic(path, `${secret}\n`);
    return new Tokens(secret, keys);
  });
}
