/** Whom to trust as a registry: the system's authorities and private ones, by host. */
import { readFile, readdir } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import type * as Tls from "node:tls";
import { errnoOf, messageOf } from "../../model/errors.ts";
import { imageError } from "../errors.ts";

/** Where registries' certificates are looked for, by host name, as Docker and podman do. */
export function defaultCertDirs(env: NodeJS.ProcessEnv = process.env): string[] {
  return [
    join(env["HOME"] ?? homedir(), ".config/containers/certs.d"),
    "/etc/containers/certs.d",
    "/etc/docker/certs.d",
  ];
}

/** Client certificate and authorities for one host. */
interface HostCertificates {
  authorities: string[];
  cert?: string;
  key?: string;
}

/** Read what certs.d directories say of a host; directories that are not there say nothing. */
async function readCertificates(host: string, dirs: readonly string[]): Promise<HostCertificates> {
  const found: HostCertificates = { authorities: [] };
  for (const dir of dirs.map((parent) => join(parent, host))) {
    let names: string[];
    try {
      names = await readdir(dir);
    } catch (error) {
      if (["ENOENT", "ENOTDIR", "EACCES"].includes(errnoOf(error) ?? "")) continue;
      throw error;
    }
    for (const name of names.sort()) {
      const path = join(dir, name);
      if (name.endsWith(".crt")) found.authorities.push(await readFile(path, "utf8"));
      if (name.endsWith(".cert") && found.cert === undefined) {
        found.cert = await readFile(path, "utf8");
        found.key = await readFile(join(dir, name.replace(/\.cert$/, ".key")), "utf8");
      }
    }
  }
  return found;
}

/**
 * TLS settings for a host. Throws ERR_IMAGE_CA_FILE.
 * @param dirs directories with HOST[:PORT]/{*.crt,*.cert,*.key}
 * @param caFile PEM certificates trusted for every host
 * @param insecure whether any certificate will do
 */
export async function secureOptions(
  url: URL,
  dirs: readonly string[],
  caFile: string | undefined,
  insecure: boolean,
): Promise<Tls.ConnectionOptions> {
  const tls = await import("node:tls");
  const { authorities, cert, key } = await readCertificates(url.host, dirs);
  if (caFile !== undefined) {
    try {
      authorities.push(await readFile(caFile, "utf8"));
    } catch (error) {
      throw imageError(
        "ERR_IMAGE_CA_FILE",
        `Cannot read the certificates in ${caFile}`,
        messageOf(error),
        "Name a readable file of PEM certificates with --ca-file.",
        error,
      );
    }
  }
  const hostname = url.hostname.replace(/^\[|\]$/g, "");
  const named = /^[\d.]+$|:/.test(hostname) ? {} : { servername: hostname };
  try {
    // The bundled authorities, the system's, then private ones; parsed once per host.
    const ca = [...tls.rootCertificates, ...tls.getCACertificates("system"), ...authorities];
    const secureContext = tls.createSecureContext({
      ca,
      ...(cert === undefined || key === undefined ? {} : { cert, key }),
    });
    const identity = named.servername ?? hostname;
    return {
      secureContext,
      rejectUnauthorized: !insecure,
      ...named,
      checkServerIdentity: (_host, peer) => tls.checkServerIdentity(identity, peer),
    };
  } catch (error) {
    throw imageError(
      "ERR_IMAGE_CA_FILE",
      `Cannot use the certificates for ${url.host}`,
      messageOf(error),
      `Check that ${caFile ?? dirs.join(", ")} hold PEM certificates.`,
      error,
    );
  }
}
