/** Tokens of a pod's ServiceAccount: each is kept until a fifth of its time is left. */
import type { References } from "./references.ts";

/** A token is renewed when a fifth of its time is left. */
const TOKEN_SHARE = 0.8;

/** The tokens of one pod. */
export class Tokens {
  private readonly known = new Map<string, { token: string; renewAt: number }>();

  /** When the first of them has to be another one, in milliseconds since the epoch; undefined: there is none. */
  get renewAt(): number | undefined {
    const times = [...this.known.values()].map(({ renewAt }) => renewAt);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  /** One that holds for a while yet. @param seconds for which a new one is to hold */
  async get(
    references: References,
    audience: string | undefined,
    seconds: number,
  ): Promise<string> {
    const key = JSON.stringify([audience, seconds]);
    const now = Date.now();
    const known = this.known.get(key);
    if (known !== undefined && now < known.renewAt) return known.token;
    const { token, expiresAt } = await references.token(audience, seconds);
    this.known.set(key, { token, renewAt: now + (expiresAt - now) * TOKEN_SHARE });
    return token;
  }

  /** Forget them: the next ones are new. */
  clear(): void {
    this.known.clear();
  }
}
