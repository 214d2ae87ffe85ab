/** Kubeconfig files: which cluster, as whom. */
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";
import { parse } from "yaml";
import { VmsanError, errnoOf, messageOf } from "../model/errors.ts";
import { kubeconfigSchema } from "../schema/kubeconfig.ts";
import type { Kubeconfig, KubeconfigUser } from "../schema/kubeconfig.ts";
import { validate } from "../schema/validate.ts";
import { pluginCredentials } from "./exec-plugin.ts";
import { TokenFile } from "./identity.ts";
import type { Identity, TlsIdentity } from "./identity.ts";

/** What is chosen of a kubeconfig. */
export interface Access {
  identity: Identity;
  /** Of the context; default `default`. */
  namespace: string;
  /** Name of the context. */
  context: string;
}

/** Where to look. */
export interface KubeconfigOptions {
  /** Path; default KUBECONFIG (several, separated by colons), else ~/.kube/config. */
  file?: string;
  /** Name; default the file's current one. */
  context?: string;
}

function wrong(message: string, why: string, fix: string, cause?: unknown): VmsanError {
  return new VmsanError({ code: "ERR_NODE_KUBECONFIG", message, why, fix }, cause);
}

/** One file; paths in it are relative to its directory. */
interface Loaded {
  path: string;
  config: Kubeconfig;
}

async function load(path: string): Promise<Loaded> {
  let value: unknown;
  try {
    value = parse(await readFile(path, "utf8"), { maxAliasCount: 100 });
  } catch (error) {
    throw wrong(
      `Cannot read ${path}`,
      messageOf(error),
      "Name a kubeconfig that can be read: --kubeconfig.",
      error,
    );
  }
  const config = validate(
    kubeconfigSchema,
    value ?? {},
    `kubeconfig ${path}`,
    "ERR_NODE_KUBECONFIG",
  );
  return { path, config };
}

/** All files that count; of those that KUBECONFIG names, some may be missing. */
async function loadAll(given: string | undefined): Promise<Loaded[]> {
  if (given !== undefined) return [await load(resolve(given))];
  const named = (process.env["KUBECONFIG"] ?? "").split(delimiter).filter((path) => path !== "");
  const paths = named.length > 0 ? named : [join(homedir(), ".kube/config")];
  const loaded: Loaded[] = [];
  for (const path of paths) {
    try {
      loaded.push(await load(resolve(path)));
    } catch (error) {
      const missing = error instanceof VmsanError && errnoOf(error.cause) === "ENOENT";
      if (!missing || paths.length === 1) throw error;
    }
  }
  return loaded;
}

/** The first of that name in any of the files. */
function find<T extends { name: string }>(
  files: readonly Loaded[],
  list: (config: Kubeconfig) => T[] | null | undefined,
  kind: string,
  name: string,
): { found: T; dir: string } {
  for (const { path, config } of files) {
    const found = list(config)?.find((entry) => entry.name === name);
    if (found !== undefined) return { found, dir: dirname(path) };
  }
  throw wrong(
    `There is no ${kind} ${JSON.stringify(name)} in the kubeconfig`,
    `Looked in ${files.map(({ path }) => path).join(", ")}.`,
    "See what there is: kubectl config view.",
  );
}

/** What is given as base64, or as the path of a file. */
async function content(
  data: string | undefined,
  path: string | undefined,
  dir: string,
): Promise<string | undefined> {
  if (data !== undefined) return Buffer.from(data, "base64").toString("utf8");
  return path === undefined ? undefined : await readFile(resolve(dir, path), "utf8");
}

/** Whom a user of a kubeconfig is shown as, besides certificates. */
function headersOf(user: KubeconfigUser, dir: string): Pick<Identity, "headers" | "refused"> {
  if (user.tokenFile !== undefined) {
    const file = new TokenFile(resolve(dir, user.tokenFile));
    return {
      headers: async () => ({ authorization: `Bearer ${await file.read()}` }),
      refused: () => file.forget(),
    };
  }
  const headers: Record<string, string> = {};
  if (user.token !== undefined) headers["authorization"] = `Bearer ${user.token}`;
  else if (user.username !== undefined) {
    const pair = `${user.username}:${user.password ?? ""}`;
    headers["authorization"] = `Basic ${Buffer.from(pair).toString("base64")}`;
  }
  return { headers: async () => await Promise.resolve(headers), refused: () => false };
}

/**
 * The cluster and the identity that a kubeconfig names.
 * @throws ERR_NODE_KUBECONFIG
 */
export async function readKubeconfig(options: KubeconfigOptions = {}): Promise<Access> {
  const files = await loadAll(options.file);
  const current = files.map(({ config }) => config["current-context"]).find((name) => name);
  const name = options.context ?? current ?? "";
  const { context } = find(files, (config) => config.contexts, "context", name).found;
  const { found, dir } = find(files, (config) => config.clusters, "cluster", context.cluster);
  const { cluster } = found;
  if (cluster["proxy-url"] !== undefined) {
    throw wrong(
      `Cannot use the cluster ${context.cluster}`,
      "proxy-url is not offered.",
      "Name a server that can be reached directly.",
    );
  }
  if (!URL.canParse(cluster.server) || !/^https?:/.test(cluster.server)) {
    throw wrong(`Invalid server: ${cluster.server}`, "It takes a URL.", "https://HOST:6443");
  }
  const ca = await content(
    cluster["certificate-authority-data"],
    cluster["certificate-authority"],
    dir,
  );
  const who =
    context.user === undefined
      ? undefined
      : find(files, (config) => config.users, "user", context.user);
  const user = who?.found.user ?? {};
  const userDir = who?.dir ?? dir;
  if (user["auth-provider"] !== undefined) {
    throw wrong(
      `Cannot use the user ${context.user}`,
      "auth-provider is not offered: Kubernetes itself has given it up.",
      "Use a plugin (exec), a token or a certificate.",
    );
  }
  const cert = await content(user["client-certificate-data"], user["client-certificate"], userDir);
  const key = await content(user["client-key-data"], user["client-key"], userDir);
  const tls: TlsIdentity = {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(cluster["tls-server-name"] === undefined ? {} : { servername: cluster["tls-server-name"] }),
    ...(cluster["insecure-skip-tls-verify"] === true ? { rejectUnauthorized: false } : {}),
  };
  const base = { url: cluster.server.replace(/\/+$/, ""), tls: () => tls };
  const identity: Identity = user.exec
    ? { ...base, ...(await pluginCredentials(user.exec, userDir, tls)) }
    : { ...base, ...headersOf(user, userDir) };
  return { identity, namespace: context.namespace ?? "default", context: name };
}
