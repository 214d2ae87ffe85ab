/**
 * http/: the TCP side of a gateway: where it listens, with which certificate, which hosts it answers
 * for, and which face gets a request. Takes faces, gives a listening server.
 *
 * listen.ts: the address, and whether it is safe to listen there.
 */
import { readFile } from "node:fs/promises";
import { isIP } from "node:net";
import { statSync } from "node:fs";
import { VmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import { parsePort } from "../../network/policy/parse.ts";
import { isLoopback } from "../../util/hosts/loopback.ts";
import { invalid } from "../../util/units.ts";

/** Where a gateway listens. */
export interface ListenAddress {
  /** An IP address. */
  host: string;
  /** 0: the kernel chooses. */
  port: number;
}

/** Files of a certificate. */
export interface TlsFiles {
  /** Absolute path of the certificate and its chain, PEM. */
  cert: string;
  /** Absolute path of its private key, PEM. */
  key: string;
}

/** Read `PORT`, `ADDRESS:PORT` or `[ADDRESS]:PORT`. @throws ERR_VALIDATION_FLAGS */
export function parseListen(text: string): ListenAddress {
  const match = /^(?:(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+|localhost)):)?(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? "127.0.0.1";
  const address = host === "localhost" ? "127.0.0.1" : host;
  if (match === null || isIP(address) === 0) {
    throw invalid(
      "FLAGS",
      "address to listen on",
      text,
      "It takes PORT, ADDRESS:PORT or [ADDRESS]:PORT with an IP address.",
      "For example: --listen 127.0.0.1:7300.",
    );
  }
  const port = match[3] === "0" ? 0 : parsePort(match[3] ?? "");
  return { host: address, port };
}

/**
 * Refuse to send keys over a network in the clear.
 * @throws ERR_VALIDATION_FLAGS
 */
export function checkExposure(
  address: ListenAddress,
  options: { tls?: TlsFiles; behindProxy?: boolean },
): void {
  if (isLoopback(address.host) || options.tls !== undefined || options.behindProxy === true) return;
  throw invalid(
    "FLAGS",
    "address to listen on",
    address.host,
    "Others can reach it, and without TLS they could read the keys that clients send.",
    "Give --tls-cert and --tls-key, or --behind-proxy when something in front speaks TLS.",
  );
}

/** A certificate read from its files. */
export interface Certificate {
  cert: Buffer;
  key: Buffer;
}

/** Reads a certificate, and again when its files have changed. */
export class CertificateFiles {
  private readonly files: TlsFiles;
  private stamp = "";

  constructor(files: TlsFiles) {
    this.files = files;
  }

  private currentStamp(): string {
    return [this.files.cert, this.files.key]
      .map((path) => {
        const { ino, mtimeNs, size } = statSync(path, { bigint: true });
        return `${ino}.${mtimeNs}.${size}`;
      })
      .join();
  }

  /** The certificate if it changed since the last call. @throws ERR_GATEWAY_TLS */
  async changed(): Promise<Certificate | undefined> {
    try {
      const stamp = this.currentStamp();
      if (stamp === this.stamp) return undefined;
      const [cert, key] = await Promise.all([readFile(this.files.cert), readFile(this.files.key)]);
      this.stamp = stamp;
      return { cert, key };
    } catch (error) {
      throw new VmsanError(
        {
          code: "ERR_GATEWAY_TLS",
          message: `Cannot read the certificate ${this.files.cert} with its key ${this.files.key}`,
          why: errnoOf(error) === "ENOENT" ? "A file does not exist." : messageOf(error),
          fix: "Give PEM files that this user can read.",
        },
        error,
      );
    }
  }
}
