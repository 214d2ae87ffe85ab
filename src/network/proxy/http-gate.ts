/**
 * What a client sends on an HTTP/1.x connection, cut into requests (RFC 9112), so that every
 * request's host is checked, not only the first one's. Strict: what two parsers could read in
 * two ways is refused. Pure.
 */

/** What becomes of a piece of client data. */
export interface GateStep {
  /** Bytes to pass on to the server. */
  forward: Buffer[];
  /** Hosts of the requests that began in this piece, in order. */
  hosts: string[];
  /** The connection ends here: why. Nothing after `forward` may pass. */
  refused?: { why: "host" | "malformed" | "too-large"; host?: string };
}

/** Longest request head, in bytes. */
const maxHead = 32_768;

type State =
  | { name: "head" }
  | { name: "body"; left: number; after: "head" | "chunk-end" }
  | { name: "chunk-size" }
  | { name: "chunk-end" }
  | { name: "trailer" }
  | { name: "upgrade" }
  | { name: "tunnel" }
  | { name: "spent" }
  | { name: "dead" };

interface Head {
  host: string;
  next: State;
}

/** Host name of `name[:port]`, lower case; undefined for anything else (literals included). */
function hostName(value: string): string | undefined {
  const match = /^([A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?)(?::\d{1,5})?$/.exec(value);
  return match?.[1]?.toLowerCase();
}

/** How the request goes on after its head; undefined when that is ambiguous. */
function framing(fields: ReadonlyMap<string, string[]>): State | undefined {
  const lengths = fields.get("content-length") ?? [];
  const codings = fields.get("transfer-encoding") ?? [];
  if (lengths.length + codings.length > 1) return undefined;
  if (codings.length === 1) {
    return codings[0]?.toLowerCase() === "chunked" ? { name: "chunk-size" } : undefined;
  }
  if (fields.has("upgrade")) {
    return lengths.length === 0 || lengths[0] === "0" ? { name: "upgrade" } : undefined;
  }
  if (lengths.length === 0) return { name: "head" };
  if (!/^\d{1,15}$/.test(lengths[0] ?? "")) return undefined;
  const left = Number(lengths[0]);
  return left === 0 ? { name: "head" } : { name: "body", left, after: "head" };
}

/** Read a request head (without its empty line); undefined when it is not plain HTTP/1.x. */
function readHead(text: string): Head | undefined {
  // A lone CR or LF is a line end to some servers and not to others.
  const [requestLine = "", ...lines] = text.split("\r\n");
  if (/[\r\n\0]/.test(text.replaceAll("\r\n", ""))) return undefined;
  const request = /^([A-Za-z]{1,32}) (\S+) HTTP\/1\.[01]$/.exec(requestLine);
  if (request === null || request[1]?.toUpperCase() === "CONNECT") return undefined;
  const fields = new Map<string, string[]>();
  for (const line of lines) {
    const field = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*$/.exec(line);
    if (field === null) return undefined;
    const name = field[1]?.toLowerCase() ?? "";
    fields.set(name, [...(fields.get(name) ?? []), field[2] ?? ""]);
  }
  const hosts = fields.get("host") ?? [];
  const host = hosts.length === 1 ? hostName(hosts[0] ?? "") : undefined;
  const target = request[2] ?? "";
  if (host === undefined) return undefined;
  if (!target.startsWith("/") && target !== "*") {
    const absolute = /^https?:\/\/([^/?#]+)/i.exec(target);
    if (hostName(absolute?.[1] ?? "") !== host) return undefined;
  }
  const next = framing(fields);
  return next === undefined ? undefined : { host, next };
}

/** Follows one client connection. */
export class HttpGate {
  private state: State = { name: "head" };
  private held: Buffer = Buffer.alloc(0);
  private readonly allowed: (host: string) => boolean;

  /** @param allowed whether requests to a host (lower case) may pass */
  constructor(allowed: (host: string) => boolean) {
    this.allowed = allowed;
  }

  /** Whether the server's answer must be known before more may pass (see {@link upgraded}). */
  get waiting(): boolean {
    return this.state.name === "upgrade";
  }

  /**
   * The server's final status for a request that asked for an upgrade: 101 opens a tunnel, any
   * other leaves the connection without a further request.
   */
  upgraded(status: number): GateStep {
    if (this.state.name !== "upgrade") return { forward: [], hosts: [] };
    this.state = status === 101 ? { name: "tunnel" } : { name: "spent" };
    return this.push(Buffer.alloc(0));
  }

  /** Take data from the client. */
  push(data: Buffer): GateStep {
    const step: GateStep = { forward: [], hosts: [] };
    this.held = this.held.length === 0 ? data : Buffer.concat([this.held, data]);
    while (this.advance(step));
    if (this.waiting && this.held.length > maxHead) this.refuse(step, "too-large");
    return step;
  }

  /** Pass `length` held bytes on. */
  private pass(step: GateStep, length: number): void {
    if (length === 0) return;
    step.forward.push(this.held.subarray(0, length));
    this.held = this.held.subarray(length);
  }

  /** End the connection. */
  private refuse(step: GateStep, why: "host" | "malformed" | "too-large", host?: string): boolean {
    this.state = { name: "dead" };
    this.held = Buffer.alloc(0);
    step.refused = host === undefined ? { why } : { why, host };
    return false;
  }

  /** One step of the machine; false when more data is needed. */
  private advance(step: GateStep): boolean {
    const { state } = this;
    switch (state.name) {
      case "head":
        return this.head(step);
      case "body": {
        const length = Math.min(state.left, this.held.length);
        this.pass(step, length);
        this.state =
          state.left === length ? { name: state.after } : { ...state, left: state.left - length };
        return length > 0 && this.held.length > 0;
      }
      case "chunk-size":
        return this.line(step, /^([0-9A-Fa-f]{1,8})(?:;[^\r\n\0]*)?$/, (match) => {
          const size = Number.parseInt(match[1] ?? "", 16);
          return size === 0
            ? { name: "trailer" }
            : { name: "body", left: size, after: "chunk-end" };
        });
      case "chunk-end":
        return this.line(step, /^$/, () => ({ name: "chunk-size" }));
      case "trailer":
        return this.line(step, /^[^\r\n\0]*$/, (match) =>
          match[0] === "" ? { name: "head" } : { name: "trailer" },
        );
      case "tunnel":
        this.pass(step, this.held.length);
        return false;
      case "spent":
        return this.held.length > 0 ? this.refuse(step, "malformed") : false;
      case "upgrade":
      case "dead":
        return false;
    }
  }

  /** A whole line of chunked framing. */
  private line(step: GateStep, form: RegExp, next: (match: RegExpExecArray) => State): boolean {
    const end = this.held.indexOf("\r\n");
    if (end < 0) return this.held.length > 4096 ? this.refuse(step, "too-large") : false;
    const match = form.exec(this.held.subarray(0, end).toString("latin1"));
    if (match === null) return this.refuse(step, "malformed");
    this.state = next(match);
    this.pass(step, end + 2);
    return true;
  }

  /** A whole request head. */
  private head(step: GateStep): boolean {
    if (this.held.length === 0) return false;
    const end = this.held.indexOf("\r\n\r\n");
    if (end < 0) return this.held.length > maxHead ? this.refuse(step, "too-large") : false;
    const head =
      end > maxHead ? undefined : readHead(this.held.subarray(0, end).toString("latin1"));
    if (head === undefined) return this.refuse(step, "malformed");
    if (!this.allowed(head.host)) return this.refuse(step, "host", head.host);
    step.hosts.push(head.host);
    this.state = head.next;
    this.pass(step, end + 4);
    return true;
  }
}
