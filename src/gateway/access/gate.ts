/** The gate that every face asks: whose request is this, may it pass, and what is written down. */
import type { IncomingMessage } from "node:http";
import { VmsanError } from "../../model/errors.ts";
import type { VmView } from "../../model/api.ts";
import type { GatewayKey } from "../../model/gateway.ts";
import type { Log } from "../../util/log.ts";
import type { Keys } from "./keys.ts";
import { Quotas, Rates } from "./limits.ts";
import type { Tokens } from "./tokens.ts";

/** Somebody whose key is known. */
export interface Caller {
  key: GatewayKey;
}

/** The key that a request presents: `Authorization: Bearer KEY` or `X-API-Key: KEY`. */
export function presentedKey(request: IncomingMessage): string | undefined {
  const { authorization } = request.headers;
  const bearer = /^bearer +(\S+)$/i.exec(authorization ?? "")?.[1];
  if (bearer !== undefined) return bearer;
  const header = request.headers["x-api-key"];
  return typeof header === "string" ? header : undefined;
}

/** What all faces share: keys, tokens, limits, and the audit log. */
export class Gate {
  readonly keys: Keys;
  readonly tokens: Tokens;
  readonly quotas = new Quotas();
  private readonly rates = new Rates();
  private readonly audit: Log;
  private readonly callers = new WeakMap<IncomingMessage, Caller>();

  constructor(keys: Keys, tokens: Tokens, audit: Log) {
    this.keys = keys;
    this.tokens = tokens;
    this.audit = audit;
  }

  /**
   * The caller of a request.
   * @param text the key it presents; by default where {@link presentedKey} looks
   * @throws ERR_GATEWAY_UNAUTHORIZED, ERR_GATEWAY_RATE
   */
  async admit(request: IncomingMessage, text = presentedKey(request)): Promise<Caller> {
    const key = text === undefined ? undefined : await this.keys.find(text);
    if (key === undefined) {
      throw new VmsanError({
        code: "ERR_GATEWAY_UNAUTHORIZED",
        message: "This request needs a valid API key",
        why:
          text === undefined
            ? "It presents none."
            : "The key is unknown, was taken away, or has expired.",
        fix: "Send `Authorization: Bearer KEY`; `vmsan key create` on the host makes one.",
      });
    }
    return this.pass(request, key);
  }

  /** Let a request pass in the name of a key that its token, or a signature, has shown. @throws ERR_GATEWAY_RATE */
  pass(request: IncomingMessage, key: GatewayKey): Caller {
    const caller = { key };
    this.callers.set(request, caller);
    this.rates.take(key);
    return caller;
  }

  /**
   * Write down what became of a request: everything that changes something or was refused.
   * @param what more to say of it; then it is written whatever it is
   */
  note(request: IncomingMessage, face: string, status: number, what = ""): void {
    const { method = "", url = "" } = request;
    if (status < 400 && what === "" && (method === "GET" || method === "HEAD")) return;
    const key = this.callers.get(request)?.key;
    const entry = {
      key: key?.id ?? null,
      project: key?.project ?? null,
      from: request.socket.remoteAddress ?? null,
      face,
      method,
      // Without its query, which may hold a signature.
      path: url.split("?", 1)[0]?.slice(0, 512),
      status,
      ...(what === "" ? {} : { what }),
    };
    this.audit.info("", entry);
  }
}

/** Whether a caller may see a VM. */
export function sees({ key }: Caller, view: VmView): boolean {
  return key.admin || view.project === key.project;
}
