/** Log in to a registry and out of it. */
import type { Credentials } from "./credentials.ts";
import { eraseCredentials, storeCredentials } from "./credentials.ts";
import { referenceError } from "../reference.ts";
import { endpointsFor } from "./registries.ts";
import type { RegistriesConfig } from "./registries.ts";
import { Session } from "./session.ts";
import { Transport } from "../http/transport.ts";
import type { TransportOptions } from "../http/transport.ts";

/** What {@link login} takes. */
export interface LoginOptions extends TransportOptions {
  username: string;
  /** Read from standard input or a terminal, never from an argument. */
  password: string;
  registries?: RegistriesConfig;
  signal?: AbortSignal;
}

/** A registry's name as users write it: `ghcr.io`, `localhost:5000`; nothing means Docker Hub. */
export function parseRegistry(text: string): string {
  const host = text.replace(/^https?:\/\//, "").replace(/\/+$/, "");
  if (/^(|index\.docker\.io(\/v1)?|registry-1\.docker\.io|docker\.io)$/.test(host)) {
    return "docker.io";
  }
  if (!/^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(:\d{1,5})?$/.test(host)) {
    throw referenceError(text, "It is not the name of a registry.", "Write it like ghcr.io.");
  }
  return host;
}

/**
 * Check credentials with the registry, then keep them for every tool that reads Docker's
 * or containers' credential file.
 * @returns where they are kept
 * Throws ERR_IMAGE_UNAUTHORIZED and what a pull may throw.
 */
export async function login(registry: string, options: LoginOptions): Promise<{ where: string }> {
  const name = parseRegistry(registry);
  const { username, password, signal } = options;
  const registries = options.registries ?? { mirrors: {}, insecure: [] };
  const endpoint = endpointsFor({ registry: name, repository: "" }, registries).at(-1);
  if (endpoint === undefined) throw new TypeError("A registry without a server");
  const transport = new Transport({
    ...options,
    insecure: options.insecure ?? ((host) => registries.insecure.includes(host)),
  });
  try {
    const credentials: Credentials = { kind: "basic", username, password };
    const session = new Session(endpoint, transport, { credentials });
    const answer = await session.get("", signal === undefined ? {} : { signal });
    answer.discard();
  } finally {
    transport.close();
  }
  return storeCredentials(name, { username, password }, options.env);
}

/** Forget a registry's credentials. @returns whether there were any */
export async function logout(registry: string, env?: NodeJS.ProcessEnv): Promise<boolean> {
  return eraseCredentials(parseRegistry(registry), env);
}
