/**
 * Tokens of single VMs: made from the gateway's secret and the VM's ID, so that a gateway that was
 * replaced knows them all and keeps none.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { VmsanError, errnoOf } from "../../model/errors.ts";
import { writeFileAtomic } from "../../util/atomic.ts";
import { withLock } from "../../util/lock.ts";

/** What a token is for; another purpose is another token. */
export type TokenPurpose = "data" | "traffic" | "upload" | "volume";

const SECRET = /^[0-9a-f]{64}$/;

/** Makes and checks tokens. */
export class Tokens {
  private readonly secret: string;

  /** @param secret 64 hex digits */
  constructor(secret: string) {
    this.secret = secret;
  }

  /** The token of a VM. @param vmId as the daemon gave it; a VM made later has another */
  of(vmId: string, purpose: TokenPurpose): string {
    return createHmac("sha256", this.secret)
      .update(`${purpose}\0${vmId}`)
      .digest("hex")
      .slice(0, 48);
  }

  /** Whether a presented token is the VM's; takes the same time for every wrong one. */
  matches(vmId: string, purpose: TokenPurpose, presented: string): boolean {
    const right = Buffer.from(this.of(vmId, purpose));
    const given = Buffer.from(presented);
    return given.length === right.length && timingSafeEqual(given, right);
  }
}

/** Read the gateway's secret, made on first use. @param directory absolute, of the gateway's files */
export async function loadTokens(directory: string): Promise<Tokens> {
  const path = join(directory, "secret");
  await mkdir(directory, { recursive: true, mode: 0o700 });
  return await withLock(`${path}.lock`, async () => {
    try {
      const text = (await readFile(path, "utf8")).trim();
      if (SECRET.test(text)) return new Tokens(text);
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
    return new Tokens(secret);
  });
}
