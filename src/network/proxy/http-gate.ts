/**
 * What a client sends on an HTTP/1.x connection, cut into requests (head.ts), so that every
 * request's host is checked, not only the first one's. Of all upgrades only WebSocket passes,
 * which stays with the host that was checked; others are not offered to the server. Pure.
 */
import { maxHead, readHead } from "./head.ts";

/** What becomes of a piece of client data. */
export interface GateStep {
  /** Bytes to pass on to the server: those of the client, but for offers of other protocols. */
  forward: Buffer[];
  /** Hosts of the requests that began in this piece, in order. */
  hosts: string[];
  /** The connection ends here: why. Nothing after `forward` may pass. */
  refused?: { why: "host" | "malformed" | "too-large" | "upgrade"; host?: string };
}

type State =
  | { name: "head" }
  | { name: "body"; left: number; after: "head" | "chunk-end" }
  | { name: "chunk-size" }
  | { name: "chunk-end" }
  | { name: "trailer" }
  | { name: "upgrade" }
  | { name: "tunnel"; begin: string | undefined }
  | { name: "spent" }
  | { name: "dead" };

/** Whether a text begins as a request of HTTP does, of any version. */
const beginsAsRequest = /^\s*[A-Za-z]{1,32} \S+ HTTP\//;

/** How much of a tunnel's begin is looked at, in characters. */
const tunnelBegin = 4096;

/** Follows one client connection. */
export class HttpGate {
  private state: State = { name: "head" };
  private held: Buffer = Buffer.alloc(0);
  private requests = 0;
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
   * The server's final answer to a request that asked for an upgrade: 101 with `websocket` opens
   * a tunnel, with anything else it ends the connection; any other status leaves the connection
   * without a further request.
   * @param protocol the answer's Upgrade field
   */
  upgraded(status: number, protocol: string): GateStep {
    const step: GateStep = { forward: [], hosts: [] };
    if (this.state.name !== "upgrade") return step;
    if (status !== 101) this.state = { name: "spent" };
    else if (protocol.toLowerCase() === "websocket") this.state = { name: "tunnel", begin: "" };
    else {
      this.refuse(step, "upgrade");
      return step;
    }
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
  private refuse(
    step: GateStep,
    why: NonNullable<GateStep["refused"]>["why"],
    host?: string,
  ): boolean {
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
        return this.tunnel(step, state.begin);
      case "spent":
        return this.held.length > 0 ? this.refuse(step, "malformed") : false;
      case "upgrade":
      case "dead":
        return false;
    }
  }

  /**
   * Bytes of a tunnel. It must not begin as HTTP does: then the server has not left that, whatever
   * it said, and another host could be asked for.
   */
  private tunnel(step: GateStep, before: string | undefined): boolean {
    if (before !== undefined) {
      const begin = (before + this.held.toString("latin1")).slice(0, tunnelBegin);
      if (beginsAsRequest.test(begin)) return this.refuse(step, "upgrade");
      this.state = { name: "tunnel", begin: begin.length < tunnelBegin ? begin : undefined };
    }
    this.pass(step, this.held.length);
    return false;
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
    this.requests += 1;
    // Of a later request the server's answer could not be told from those to earlier ones.
    if (head.webSocket && this.requests === 1) {
      this.state = { name: "upgrade" };
      this.pass(step, end + 4);
      return true;
    }
    this.state = head.framing;
    if (head.withoutUpgrade === undefined) this.pass(step, end + 4);
    else {
      step.forward.push(Buffer.from(head.withoutUpgrade, "latin1"));
      this.held = this.held.subarray(end + 4);
    }
    return true;
  }
}
