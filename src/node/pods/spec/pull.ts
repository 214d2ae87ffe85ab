/** Images of pods, with the credentials that their Secrets hold. */
import type { WorkOptions } from "../../../client/daemon.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import type { BlobPeers, PullPolicy } from "../../../model/api.ts";
import { VmsanError, messageOf } from "../../../model/errors.ts";
import { registryAuthsSchema } from "../../../schema/pod.ts";
import type { Pod, PodContainer } from "../../../schema/pod.ts";
import { validate } from "../../../schema/validate.ts";
import { PodNotReadyError } from "./failure.ts";
import type { Content, References } from "../files/references.ts";

interface Credentials {
  username: string;
  password: string;
}

/** As the kubelet names the policies. */
export function pullPolicyOf({ imagePullPolicy: policy }: PodContainer): PullPolicy {
  if (policy === "Always") return "always";
  return policy === "Never" ? "never" : "missing";
}

/** Addresses of old by which the default registry is known. */
const DEFAULT_REGISTRY = new Set(["index.docker.io", "docker.io", "registry-1.docker.io"]);

/** The registry that an image's name leads to, as credentials name it. */
function registryOf(image: string): string {
  const [first = "", ...rest] = image.split("/");
  const named = rest.length > 0 && (/[.:]/.test(first) || first === "localhost");
  return named ? first : "docker.io";
}

/** Whether credentials for an address (`https://host/v1/`, `host/path`, `*.host`) are meant for an image. */
export function isFor(address: string, image: string): boolean {
  const [host = "", ...path] = address.replace(/^https?:\/\//, "").split("/");
  const registry = registryOf(image);
  const prefix = path.filter((word) => word !== "" && word !== "v1" && word !== "v2").join("/");
  if (DEFAULT_REGISTRY.has(host)) return registry === "docker.io";
  const [name = "", port = ""] = host.split(":");
  const [wantedName = "", wantedPort = ""] = registry.split(":");
  const labels = name.split(".");
  const wanted = wantedName.split(".");
  const same =
    port === wantedPort &&
    labels.length === wanted.length &&
    labels.every((label, index) => label === "*" || label === wanted[index]);
  return same && (prefix === "" || image.slice(registry.length + 1).startsWith(`${prefix}/`));
}

/** The credentials in a Secret that are meant for an image. */
function credentialsIn(content: Content, image: string): Credentials[] {
  const config = content.values.get(".dockerconfigjson");
  const old = content.values.get(".dockercfg");
  const bytes = config ?? old;
  if (bytes === undefined) return [];
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString("utf8"));
  } catch (error) {
    throw new PodNotReadyError("ErrImagePull", "a pull secret holds no JSON", error);
  }
  const auths = config === undefined ? value : (value as { auths?: unknown } | null)?.auths;
  const parsed = validate(registryAuthsSchema, auths ?? {}, "pull secret", "ERR_NODE_OBJECT");
  return Object.entries(parsed).flatMap(([address, entry]) => {
    if (!isFor(address, image)) return [];
    const pair = entry.auth ? Buffer.from(entry.auth, "base64").toString("utf8") : "";
    const at = pair.indexOf(":");
    const username = entry.username ?? (at < 0 ? undefined : pair.slice(0, at));
    const password = entry.password ?? (at < 0 ? undefined : pair.slice(at + 1));
    return username === undefined || password === undefined ? [] : [{ username, password }];
  });
}

/**
 * Have a pod's image in the store, with the credentials of its own if it names any.
 * @param work `known`: it was there, and whoever needs no credentials need not ask; `peers`: other nodes that may have its
 *   layers
 * @returns how the VM is to get it
 * @throws PodNotReadyError with `ErrImagePull`, ERR_IMAGE_*
 */
export async function fetchImage(
  vmsan: Vmsan,
  pod: Pod,
  container: PodContainer,
  references: References,
  { known = false, ...work }: WorkOptions & { known?: boolean; peers?: BlobPeers } = {},
): Promise<PullPolicy> {
  const policy = pullPolicyOf(container);
  const secrets = (pod.spec.imagePullSecrets ?? []).flatMap(({ name }) => (name ? [name] : []));
  if (policy === "never") return policy;
  const all: Credentials[] = [];
  for (const name of secrets) {
    // As the kubelet does: one that is missing is told by the registry, if it was needed.
    const content = await references.content("secrets", name, true);
    if (content !== undefined) all.push(...credentialsIn(content, container.image));
  }
  if (all.length === 0) {
    if (known) return policy;
    await vmsan.images.pull(container.image, { pull: policy, ...work });
    return "never";
  }
  let failure: unknown;
  for (const credentials of all) {
    try {
      await vmsan.images.pull(container.image, { pull: policy, credentials, ...work });
      return "never";
    } catch (error) {
      work.signal?.throwIfAborted();
      failure = error;
      const code = error instanceof VmsanError ? error.code : "";
      if (code !== "ERR_IMAGE_UNAUTHORIZED" && code !== "ERR_IMAGE_DENIED") break;
    }
  }
  throw new PodNotReadyError("ErrImagePull", messageOf(failure), failure);
}
