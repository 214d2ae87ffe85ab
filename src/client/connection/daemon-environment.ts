/**
 * What the daemon gets of the environment of whoever starts it. It outlives that shell by days, and its
 * environment can be read by the user's other processes: keys and tokens that happen to be exported stay out of it, and out of the
 * programs that it starts. What a pull needs travels with its request (util/registry-env.ts).
 */

const KEPT: ReadonlySet<string> = new Set([
  "PATH",
  "HOME",
  "USER",
  "LOGNAME",
  "SHELL",
  "LANG",
  "LANGUAGE",
  "TZ",
  "TMPDIR",
  "TERM",
  "DBUS_SESSION_BUS_ADDRESS",
  "DOCKER_HOST",
  "DOCKER_CONFIG",
  "REGISTRY_AUTH_FILE",
  "SSL_CERT_FILE",
  "SSL_CERT_DIR",
  "LD_LIBRARY_PATH",
  "APT_CONFIG",
  "NODE_COMPILE_CACHE",
  "NODE_DEBUG",
  "NODE_EXTRA_CA_CERTS",
  "NODE_USE_SYSTEM_CA",
  "NODE_V8_COVERAGE",
]);

const PROXIES = /^(?:https?|ftp|no|all)_proxy$/i;

/** Of the language, desktop, memory, traces and vmsan itself. */
const KEPT_PREFIXES = ["LC_", "XDG_", "UV_", "MALLOC_", "OTEL_", "VMSAN_"];

/** For gateways of other machines. */
const CLIENTS_ONLY: ReadonlySet<string> = new Set(["VMSAN_KEY", "VMSAN_URL"]);

/** Those variables of an environment that a daemon is started with. */
export function daemonEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(env).filter(
      ([name]) =>
        !CLIENTS_ONLY.has(name) &&
        (KEPT.has(name) ||
          PROXIES.test(name) ||
          KEPT_PREFIXES.some((prefix) => name.startsWith(prefix))),
    ),
  );
}
