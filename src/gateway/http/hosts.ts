/** Which host names a gateway answers for, and which of them mean a port of a VM. */
import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";
import { VmsanError } from "../../model/errors.ts";

/** A port of a VM, as `PORT-VM.DOMAIN` names it. */
export interface GuestPort {
  vm: string;
  port: number;
}

const GUEST_LABEL = /^(\d{1,5})-([a-z0-9][a-z0-9_-]{0,62})$/;

/** The Host header's name, lower case, without its port; undefined when there is none. */
export function hostName(request: Pick<IncomingMessage, "headers">): string | undefined {
  const text = request.headers.host;
  if (text === undefined) return undefined;
  const match = /^(?:\[([^\]]+)\]|([^:]*))(?::\d{1,5})?$/.exec(text.toLowerCase());
  return match?.[1] ?? match?.[2];
}

/** The address that a caller used, for URLs that it is told; its host was checked. */
export function originOf(request: IncomingMessage): string {
  const { host = "", "x-forwarded-proto": proto } = request.headers;
  const secure = "encrypted" in request.socket || proto === "https";
  return `${secure ? "https" : "http"}://${host}`;
}

/** The names of one gateway. */
export class Hosts {
  private readonly domains: readonly string[];

  /**
   * @param domains names besides addresses and localhost, with or without a port; `PORT-VM.` may stand
   *   before them
   */
  constructor(domains: readonly string[]) {
    const names = domains.map((domain) => domain.toLowerCase().replace(/:\d{1,5}$/, ""));
    this.domains = [...names, "localhost"];
  }

  /** The port of a VM that a request's host names, if it names one. */
  guestPort(request: Pick<IncomingMessage, "headers">): GuestPort | undefined {
    const name = hostName(request);
    const domain = this.domains.find((known) => name?.endsWith(`.${known}`));
    if (name === undefined || domain === undefined) return undefined;
    const [, port, vm] = GUEST_LABEL.exec(name.slice(0, -domain.length - 1)) ?? [];
    if (vm === undefined || Number(port) < 1 || Number(port) > 65_535) return undefined;
    return { vm, port: Number(port) };
  }

  /**
   * Refuse names that are not this gateway's: a page of another site that has its name resolve to
   * this address must not be taken for one of ours.
   * @throws ERR_GATEWAY_HOST
   */
  check(request: IncomingMessage): void {
    const name = hostName(request);
    // Of two hosts a proxy before this gateway may have looked at the other one.
    const once = (request.headersDistinct["host"] ?? []).length === 1;
    if (name !== undefined && once) {
      if (isIP(name) !== 0) return;
      if (this.domains.some((known) => name === known || name.endsWith(`.${known}`))) return;
    }
    throw new VmsanError({
      code: "ERR_GATEWAY_HOST",
      message: `This gateway does not answer for ${JSON.stringify((name ?? "").slice(0, 100))}`,
      why: "It is not an address, localhost, or a domain that the gateway was told.",
      fix: "Start it with --domain NAME.",
    });
  }
}
