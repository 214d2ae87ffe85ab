/**
 * The environment variables that say how registries are reached. The daemon has a part of the
 * environment of whoever started it; a pull must obey that of whoever asks for it, so these
 * few travel with the request. Their values may hold secrets: they are neither logged nor kept.
 */
import { resolve } from "node:path";

/** Proxies, as curl and Go read them. */
const PROXIES = [
  "http_proxy",
  "HTTP_PROXY",
  "https_proxy",
  "HTTPS_PROXY",
  "no_proxy",
  "NO_PROXY",
] as const;
/** Directories and files with credentials. */
const PLACES = ["DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "HOME", "XDG_RUNTIME_DIR"] as const;
/** What `docker-credential-*` programs need to be found and to find their keys. */
const HELPERS = ["PATH", "DBUS_SESSION_BUS_ADDRESS", "GNUPGHOME", "PASSWORD_STORE_DIR"] as const;
/** What those of clouds take their keys from. */
const CLOUDS = [
  "AWS_ACCESS_KEY_ID",
  "AWS_SECRET_ACCESS_KEY",
  "AWS_SESSION_TOKEN",
  "AWS_PROFILE",
  "AWS_REGION",
  "AWS_DEFAULT_REGION",
  "AWS_CONFIG_FILE",
  "AWS_SHARED_CREDENTIALS_FILE",
  "AWS_ROLE_ARN",
  "AWS_WEB_IDENTITY_TOKEN_FILE",
  "GOOGLE_APPLICATION_CREDENTIALS",
  "CLOUDSDK_CONFIG",
  "AZURE_CONFIG_DIR",
] as const;

/** All variables that travel. */
export const REGISTRY_VARIABLES = [...PROXIES, ...PLACES, ...HELPERS, ...CLOUDS] as const;

/** The caller's variables, paths made absolute. */
export function registryVariables(env: NodeJS.ProcessEnv): Record<string, string> {
  const places: readonly string[] = PLACES;
  return Object.fromEntries(
    REGISTRY_VARIABLES.flatMap((name) => {
      const value = env[name];
      if (value === undefined || value === "") return [];
      return [[name, places.includes(name) ? resolve(value) : value]];
    }),
  );
}

/** An environment with the caller's variables; what the caller has not set counts as unset. */
export function withRegistryVariables(
  own: NodeJS.ProcessEnv,
  sent: Readonly<Record<string, string>> | undefined,
): NodeJS.ProcessEnv {
  if (sent === undefined) return own;
  const env = { ...own };
  for (const name of REGISTRY_VARIABLES) delete env[name];
  return { ...env, ...sent };
}
