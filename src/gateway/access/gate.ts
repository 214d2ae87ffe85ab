/** The gate that every face asks: whose request is this, may it pass, and what is written down. */
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
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

/** What a client has open. */
interface Destroyable {
  readonly destroyed: boolean;
  destroy(): unknown;
}

/** The connection of a request; one that was destroyed has none any more, whatever its type says. */
function socketOf(request: IncomingMessage): Socket | undefined {
  return (request as { socket: Socket | null }).socket ?? undefined;
}

/** How often it is looked whether keys of what is open are still good, in milliseconds. */
const LOOK_MS = 500;

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
  /** Requests that are not answered whole, with their keys and connections, or streams of HTTP/2. */
  private readonly open = new Map<IncomingMessage, { connection: Destroyable; key: string }>();
  private readonly looking: NodeJS.Timeout;

  constructor(keys: Keys, tokens: Tokens, audit: Log) {
    this.keys = keys;
    this.tokens = tokens;
    this.audit = audit;
    this.looking = setInterval(() => {
      // A file of keys that cannot be read is told to whoever asks next.
      this.cutOff().catch(() => undefined);
    }, LOOK_MS);
    this.looking.unref();
  }

  /** Look no more after keys that were taken away. */
  close(): void {
    clearInterval(this.looking);
  }

  /** End what is open in the name of keys that are not good any more. */
  private async cutOff(): Promise<void> {
    if (this.open.size === 0) return;
    const good = new Set((await this.keys.good()).map(({ id }) => id));
    for (const [request, { connection, key }] of this.open) {
      if (!good.has(key)) connection.destroy();
      if (connection.destroyed) this.open.delete(request);
    }
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
    const connection = "stream" in request ? (request.stream as Destroyable) : socketOf(request);
    if (connection !== undefined) this.open.set(request, { connection, key: key.id });
    this.rates.take(key);
    return caller;
  }

  /**
   * Write down what became of a request: everything that changes something or was refused.
   * @param what more to say of it; then it is written whatever it is
   */
  note(request: IncomingMessage, face: string, status: number, what = ""): void {
    const { method = "", url = "" } = request;
    // A connection that was switched is open from now on.
    if (status !== 101) this.open.delete(request);
    if (status < 400 && what === "" && (method === "GET" || method === "HEAD")) return;
    const key = this.callers.get(request)?.key;
    const entry = {
      key: key?.id ?? null,
      project: key?.project ?? null,
      from: socketOf(request)?.remoteAddress ?? null,
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
