/**
 * Credentials for registries as Docker and containers keep them: `auth.json` and
 * `config.json` files with `auths`, `credHelpers` and `credsStore`. Secrets travel by file
 * and by helpers' standard input only, never in arguments, messages or errors.
 */
import { readFile, realpath } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { VmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import { authEntrySchema, authFileSchema, helperCredentialsSchema } from "../../schema/oci.ts";
import type { AuthFile } from "../../schema/oci.ts";
import { writeFileAtomic } from "../../util/atomic.ts";
import { withLock } from "../../util/lock.ts";
import { run } from "../../util/run.ts";
import { imageError } from "../errors.ts";

/** How to prove who one is. */
export type Credentials =
  | { kind: "basic"; username: string; password: string }
  /** An OAuth2 refresh token, exchanged at the token server. */
  | { kind: "identity"; token: string };

/** Docker Hub's key in these files. */
const HUB_KEY = "https://index.docker.io/v1/";

/** The file that `login` writes: REGISTRY_AUTH_FILE, or Docker's configuration. */
function authFilePath(env: NodeJS.ProcessEnv = process.env): string {
  const own = env["REGISTRY_AUTH_FILE"] ?? "";
  if (own !== "") return own;
  return join(env["DOCKER_CONFIG"] ?? join(env["HOME"] ?? homedir(), ".docker"), "config.json");
}

/** Files that are looked through, first match wins. */
function authFiles(env: NodeJS.ProcessEnv): string[] {
  const first = authFilePath(env);
  if ((env["REGISTRY_AUTH_FILE"] ?? "") !== "") return [first];
  const runtime = env["XDG_RUNTIME_DIR"];
  const home = env["HOME"] ?? homedir();
  return [
    first,
    ...(runtime === undefined ? [] : [join(runtime, "containers/auth.json")]),
    join(home, ".config/containers/auth.json"),
  ];
}

/** Read a credential file; undefined when there is none. */
async function readAuthFile(path: string): Promise<AuthFile | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(errnoOf(error) ?? "")) return undefined;
    throw imageError(
      "ERR_IMAGE_AUTH_FILE",
      `Cannot read the credentials in ${path}`,
      messageOf(error),
      "Make the file readable, or name another one with REGISTRY_AUTH_FILE.",
    );
  }
  let value: unknown;
  try {
    value = text.trim() === "" ? {} : JSON.parse(text);
  } catch {
    // JSON.parse quotes the text in its message, which may hold secrets: not passed on.
    value = undefined;
  }
  const result = authFileSchema.safeParse(value);
  if (result.success) return result.data;
  throw imageError(
    "ERR_IMAGE_AUTH_FILE",
    `Cannot read the credentials in ${path}`,
    "It is not a credential file: JSON with `auths`, `credHelpers` or `credsStore`.",
    "Repair it, or move it away and log in again.",
  );
}

/** A key of `auths` as a host, perhaps with a path: `https://host/v1/` is `host`. */
function normalizeKey(key: string): string {
  const bare = key.replace(/^https?:\/\//, "").replace(/\/+$/, "");
  const host = bare.replace(/\/v[12]$/, "");
  return /^(index\.docker\.io|registry-1\.docker\.io|docker\.io)$/.test(host) ? "docker.io" : host;
}

/** The keys under which a repository's credentials may stand, most special first. */
function keysFor(registry: string, repository: string): string[] {
  const parts = repository === "" ? [] : repository.split("/");
  const keys = parts.map((_, index) =>
    [registry, ...parts.slice(0, parts.length - index)].join("/"),
  );
  return [...keys, registry];
}

/** How the registry is called towards helpers and in Docker's file. */
function serverKey(registry: string): string {
  return registry === "docker.io" ? HUB_KEY : registry;
}

/** Credentials of a username and secret; helpers mark identity tokens by `<token>`. */
function fromPair(username: string, secret: string): Credentials {
  return username === "<token>"
    ? { kind: "identity", token: secret }
    : { kind: "basic", username, password: secret };
}

/** Run `docker-credential-NAME`. Its output may hold secrets and is never put into errors. */
async function runHelper(
  helper: string,
  action: "get" | "store" | "erase",
  input: string,
  env: NodeJS.ProcessEnv,
): Promise<{ ok: boolean; output: string }> {
  const failure = (why: string): Error =>
    imageError(
      "ERR_IMAGE_AUTH_HELPER",
      `Cannot ${action} credentials with docker-credential-${helper}`,
      why,
      "Install the helper, or remove it from the credential file (credHelpers, credsStore).",
    );
  if (!/^[A-Za-z0-9._-]{1,64}$/.test(helper)) throw failure("That is no name of a helper.");
  try {
    const result = await run(`docker-credential-${helper}`, [action], {
      input,
      env,
      timeoutMs: 30_000,
      maxOutput: 65_536,
    });
    return { ok: result.code === 0, output: result.stdout };
  } catch (error) {
    if (error instanceof VmsanError) throw failure(error.why ?? "It does not run.");
    throw error;
  }
}

/** Ask a helper; undefined when it knows nothing of the registry. */
async function askHelper(
  helper: string,
  registry: string,
  env: NodeJS.ProcessEnv,
): Promise<Credentials | undefined> {
  const { ok, output } = await runHelper(helper, "get", `${serverKey(registry)}\n`, env);
  if (!ok) {
    if (/not found|no credentials/i.test(output)) return undefined;
    throw imageError(
      "ERR_IMAGE_AUTH_HELPER",
      `Cannot get credentials for ${registry}`,
      `docker-credential-${helper} failed.`,
      `Run \`docker-credential-${helper} get\` by hand to see why (type the registry's name).`,
    );
  }
  const parsed = helperCredentialsSchema.safeParse(JSON.parse(output));
  if (!parsed.success || parsed.data.Secret === "") return undefined;
  return fromPair(parsed.data.Username, parsed.data.Secret);
}

/** Credentials of an entry of `auths`. */
function fromEntry(value: unknown): Credentials | undefined {
  // One that is none says nothing about the others.
  const entry = authEntrySchema.safeParse(value).data;
  if (entry === undefined) return undefined;
  if (entry.identitytoken !== undefined && entry.identitytoken !== "") {
    return { kind: "identity", token: entry.identitytoken };
  }
  if (entry.auth !== undefined && entry.auth !== "") {
    const pair = Buffer.from(entry.auth, "base64").toString("utf8").replace(/\0+$/, "");
    const colon = pair.indexOf(":");
    if (colon > 0) return fromPair(pair.slice(0, colon), pair.slice(colon + 1));
  }
  if (entry.username !== undefined && entry.password !== undefined) {
    return fromPair(entry.username, entry.password);
  }
  return undefined;
}

/**
 * Find the credentials for a repository, or undefined to ask anonymously.
 * @param registry e.g. `docker.io`, `localhost:5000`
 * Throws ERR_IMAGE_AUTH_FILE, ERR_IMAGE_AUTH_HELPER.
 */
export async function findCredentials(
  registry: string,
  repository = "",
  env: NodeJS.ProcessEnv = process.env,
): Promise<Credentials | undefined> {
  for (const path of authFiles(env)) {
    const file = await readAuthFile(path);
    if (file === undefined) continue;
    for (const [key, helper] of Object.entries(file.credHelpers ?? {})) {
      if (normalizeKey(key) !== registry || typeof helper !== "string") continue;
      const found = await askHelper(helper, registry, env);
      if (found !== undefined) return found;
    }
    for (const wanted of keysFor(registry, repository)) {
      for (const [key, entry] of Object.entries(file.auths ?? {})) {
        const found = normalizeKey(key) === wanted ? fromEntry(entry) : undefined;
        if (found !== undefined) return found;
      }
    }
    const store = file.credsStore ?? "";
    const found = store === "" ? undefined : await askHelper(store, registry, env);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The helper that keeps a registry's credentials, if any. */
function helperOf(file: AuthFile, registry: string): string | undefined {
  const own = Object.entries(file.credHelpers ?? {}).find(
    ([key, helper]) => normalizeKey(key) === registry && typeof helper === "string",
  );
  const store = file.credsStore ?? "";
  if (typeof own?.[1] === "string") return own[1];
  return store === "" ? undefined : store;
}

/** The file behind a symbolic link: replacing must not cut the link. */
async function realPath(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return path;
    throw error;
  }
}

/** Change the credential file under a lock, leaving everything unknown as it is. */
async function changeAuthFile<T>(
  env: NodeJS.ProcessEnv,
  change: (file: AuthFile) => Promise<T>,
): Promise<T> {
  const path = await realPath(authFilePath(env));
  return withLock(`${path}.vmsan-lock`, async () => {
    const file = (await readAuthFile(path)) ?? {};
    const before = JSON.stringify(file);
    const result = await change(file);
    if (JSON.stringify(file) !== before) {
      await writeFileAtomic(path, `${JSON.stringify(file, null, "\t")}\n`, 0o600);
    }
    return result;
  });
}

/** Keep credentials: with the helper that is configured, else in the file (mode 0600). */
export async function storeCredentials(
  registry: string,
  credentials: { username: string; password: string },
  env: NodeJS.ProcessEnv = process.env,
): Promise<{ where: string }> {
  return changeAuthFile(env, async (file) => {
    const helper = helperOf(file, registry);
    const key = serverKey(registry);
    if (helper !== undefined) {
      const { username, password } = credentials;
      const input = JSON.stringify({ ServerURL: key, Username: username, Secret: password });
      const { ok } = await runHelper(helper, "store", input, env);
      if (!ok) {
        throw imageError(
          "ERR_IMAGE_AUTH_HELPER",
          `Cannot store credentials for ${registry}`,
          `docker-credential-${helper} failed.`,
          "Check that the helper works (for a key ring: that it is unlocked).",
        );
      }
      // Docker marks helper-kept logins by an empty entry.
      file.auths = { ...file.auths, [key]: {} };
      return { where: `docker-credential-${helper}` };
    }
    const pair = `${credentials.username}:${credentials.password}`;
    file.auths = { ...file.auths, [key]: { auth: Buffer.from(pair).toString("base64") } };
    return { where: authFilePath(env) };
  });
}

/** Forget credentials. @returns whether there were any */
export async function eraseCredentials(
  registry: string,
  env: NodeJS.ProcessEnv = process.env,
): Promise<boolean> {
  return changeAuthFile(env, async (file) => {
    const helper = helperOf(file, registry);
    const keys = Object.keys(file.auths ?? {}).filter((key) => normalizeKey(key) === registry);
    if (helper !== undefined) await runHelper(helper, "erase", `${serverKey(registry)}\n`, env);
    for (const key of keys) delete file.auths?.[key];
    return keys.length > 0 || helper !== undefined;
  });
}
