/** Credentials of one call: in a file that the daemon reads, and that goes with the call. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RegistryAccess } from "../../model/api.ts";

/** A name and a password, or a token in its place. */
export interface RegistryCredentials {
  username: string;
  password: string;
}

/**
 * Call with credentials for the registry of an image.
 * @param name of the image
 * @param credentials undefined: those that are kept
 */
export async function withCredentials<T>(
  name: string,
  credentials: RegistryCredentials | undefined,
  access: RegistryAccess,
  body: (access: RegistryAccess) => Promise<T>,
): Promise<T> {
  if (credentials === undefined) return await body(access);
  const { parseReference } = await import("../../oci/reference.ts");
  const { registry } = parseReference(name);
  // The default registry is known by an address of old.
  const keys = registry === "docker.io" ? ["https://index.docker.io/v1/", registry] : [registry];
  const auth = Buffer.from(`${credentials.username}:${credentials.password}`).toString("base64");
  const dir = await mkdtemp(join(tmpdir(), "vmsan-auth-"));
  try {
    const file = join(dir, "config.json");
    const auths = Object.fromEntries(keys.map((key) => [key, { auth }]));
    await writeFile(file, JSON.stringify({ auths }), { mode: 0o600 });
    const env = { ...access.env, DOCKER_CONFIG: dir, REGISTRY_AUTH_FILE: file };
    return await body({ ...access, env });
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
