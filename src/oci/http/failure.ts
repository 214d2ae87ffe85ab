/** Failures of talking to a registry: what to say, and whether trying again can help. */
import { VmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import type { ErrorInfo } from "../../model/errors.ts";
import { formatBytes } from "../../util/units.ts";

/** An error that knows whether to try again. */
export class PullFailure extends VmsanError {
  /** Trying again may help. */
  readonly retry: boolean;
  /** Milliseconds that the server asks to wait. */
  readonly waitMs: number | undefined;

  /** @param retry whether trying again may help */
  constructor(info: ErrorInfo, retry: boolean, waitMs?: number, cause?: unknown) {
    super(info, cause);
    this.retry = retry;
    this.waitMs = waitMs;
  }
}

/** An address without what may be secret: user, password and query (signed addresses). */
export function safeUrl(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname}`;
}

const TLS_CODES =
  /^(ERR_TLS|ERR_SSL|CERT_|DEPTH_ZERO|UNABLE_TO|SELF_SIGNED|ERR_OSSL|EPROTO$|HOSTNAME_MISMATCH)/;

/** What a socket error means. */
export function networkFailure(error: unknown, url: URL): PullFailure {
  if (error instanceof PullFailure) return error;
  const errno = errnoOf(error) ?? "";
  const message = `Cannot reach ${safeUrl(url)}`;
  if (TLS_CODES.test(errno)) {
    return new PullFailure(
      {
        code: "ERR_IMAGE_TLS",
        message,
        why: `The TLS connection was refused: ${messageOf(error)}.`,
        fix: `If its certificate is from a private authority, name that with --ca-file or put it into /etc/docker/certs.d/${url.host}/ca.crt. A registry without TLS must be listed as insecure.`,
      },
      false,
      undefined,
      error,
    );
  }
  const unknownHost = errno === "ENOTFOUND";
  const without =
    "Without a network: `vmsan image load -i FILE`, or an image of this host by its path (oci:DIR, docker-archive:FILE, rootfs:DIR).";
  return new PullFailure(
    {
      code: "ERR_IMAGE_NETWORK",
      message,
      why: unknownHost ? `No address is known for ${url.hostname}.` : messageOf(error),
      fix: unknownHost
        ? `Check the registry's name, the name servers and HTTPS_PROXY. ${without}`
        : `Check the network and the registry, and HTTPS_PROXY if there is a proxy; what came so far is kept. ${without}`,
    },
    !unknownHost,
    undefined,
    error,
  );
}

/** Milliseconds of a Retry-After header: seconds or a date. */
export function retryAfter(header: string | undefined): number | undefined {
  if (header === undefined) return undefined;
  if (/^\d+$/.test(header.trim())) return Number(header) * 1000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}

/**
 * What an answer other than success means.
 * @param said the registry's own words, if any
 * @param write whether something was to be changed there
 */
export function statusFailure(
  status: number,
  url: URL,
  said: string,
  retryAfterHeader?: string,
  write = false,
): PullFailure {
  const message = `Cannot ${write ? "push to" : "get"} ${safeUrl(url)}`;
  const words = said === "" ? "" : ` It says: ${said}`;
  const make = (code: string, why: string, fix: string, retry: boolean): PullFailure =>
    new PullFailure(
      { code, message, why: `${why}${words}`, fix, details: { status } },
      retry,
      retryAfter(retryAfterHeader),
    );
  switch (status) {
    case 401:
      return make(
        "ERR_IMAGE_UNAUTHORIZED",
        `${url.host} wants other credentials than it got (status 401).`,
        `Run \`vmsan login ${url.host}\`, and check that the image's name is right.`,
        false,
      );
    case 403:
      return make(
        "ERR_IMAGE_DENIED",
        `${url.host} does not allow it (status 403).`,
        `Check that the account of \`vmsan login ${url.host}\` may ${write ? "write to" : "read"} this repository.`,
        false,
      );
    case 404:
      return make(
        "ERR_IMAGE_NOT_FOUND",
        `${url.host} has no such thing (status 404).`,
        write
          ? "Check the name; some registries want a repository to be made before it is pushed to."
          : "Check the name, the tag and the digest.",
        false,
      );
    case 429:
      return make(
        "ERR_IMAGE_RATE_LIMIT",
        `${url.host} limits how often it may be asked (status 429).`,
        "Wait, or log in to have a higher limit; what came so far is kept.",
        true,
      );
    default:
      return make(
        "ERR_IMAGE_REGISTRY",
        `${url.host} answered with status ${status}.`,
        "Try again later; what came so far is kept.",
        status >= 500 || status === 408,
      );
  }
}

/** The error for a server that stops sending. @param bytes that should have come within that time */
export function stalledFailure(url: URL, bytes: number, idleMs: number): PullFailure {
  return new PullFailure(
    {
      code: "ERR_IMAGE_STALLED",
      message: `Cannot get ${safeUrl(url)}`,
      why: `Less than ${formatBytes(bytes)} came in ${idleMs / 1000} seconds.`,
      fix: "Check the network; what came so far is kept, and the next pull continues.",
    },
    true,
  );
}
