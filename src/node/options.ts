/** What people write of a node, made into what it is started with. */
import { isAbsolute, normalize, resolve } from "node:path";
import type { DriverName } from "../model/vm.ts";
import { layoutOf, vmsanDir } from "../util/paths.ts";
import { checkTlsFiles, invalid, parseInteger } from "../util/units.ts";
import { readGiven } from "./given.ts";
import { joinedIdentity } from "./join/joined.ts";
import { serviceAccount } from "../kube/identity.ts";
import type { Identity } from "../kube/identity.ts";
import { readKubeconfig } from "../kube/kubeconfig.ts";
import type { NodeOptions } from "./node.ts";
import type { AllowedHostPath } from "./pods/files/volumes.ts";
import { parseQuantity } from "./pods/spec/quantity.ts";

/** Flags of `vmsan node run`. */
export interface NodeWishes {
  kubeconfig?: string;
  context?: string;
  name?: string;
  address?: string;
  port?: string;
  cpus?: string;
  memory?: string;
  maxPods?: string;
  label?: string[];
  untainted?: boolean;
  allowHostPath?: string[];
  clientCa?: string;
  tlsCert?: string;
  tlsKey?: string;
  volumeQuota?: string;
  gracePeriod?: string;
  peers?: boolean;
  suspended?: string;
  driver?: DriverName | "auto";
}

/** `/data`, `/data:ro`. @throws ERR_VALIDATION_FLAGS */
function hostPath(word: string): AllowedHostPath {
  const readonly = word.endsWith(":ro");
  const path = word.replace(/:r[ow]$/, "");
  if (isAbsolute(path) && normalize(path) === path && path !== "/" && !path.endsWith("/")) {
    return { path, readonly };
  }
  throw invalid(
    "FLAGS",
    "host path",
    word,
    "It takes the absolute path of a directory, without `..` and not the root.",
    "For example: /srv/data:ro.",
  );
}

function labels(words: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    words.map((word): [string, string] => {
      const match = /^([a-zA-Z0-9./_-]{1,253})=([a-zA-Z0-9._-]{0,63})$/.exec(word);
      if (match !== null) return [match[1] ?? "", match[2] ?? ""];
      throw invalid("FLAGS", "label", word, "It takes KEY=VALUE.", "For example: zone=a.");
    }),
  );
}

/** `8Gi`, `8g`, `8192` MiB, in bytes; undefined: it is no size. */
function sizeBytes(text: string): number | undefined {
  const bytes = parseQuantity(/^\d+$/.test(text) ? `${text}Mi` : text.replace(/g$/i, "Gi"));
  return bytes === undefined ? undefined : Math.floor(bytes);
}

function memoryBytes(text: string): number {
  const bytes = sizeBytes(text);
  if (bytes !== undefined && bytes >= 2 ** 27) return bytes;
  throw invalid("FLAGS", "memory", text, "It takes at least 128 MiB.", "For example: 8Gi, 8192.");
}

function quotaBytes(text: string): number {
  const bytes = sizeBytes(text);
  if (bytes !== undefined && bytes >= 0) return bytes;
  throw invalid("FLAGS", "volume quota", text, "It takes a size.", "For example: 50Gi; 0: none.");
}

/** Who this node is: what it was told, what it joined as, or the pod that it runs in. */
async function identityOf({ kubeconfig, context }: NodeWishes): Promise<Identity> {
  if (kubeconfig !== undefined) {
    const named = context === undefined ? {} : { context };
    return (await readKubeconfig({ file: resolve(kubeconfig), ...named })).identity;
  }
  const joined = await joinedIdentity(layoutOf(vmsanDir()).node);
  return joined ?? (await serviceAccount(process.env));
}

/** @throws ERR_VALIDATION_*, ERR_NODE_KUBECONFIG, ERR_NODE_IDENTITY */
export async function nodeOptions(wishes: NodeWishes): Promise<NodeOptions> {
  const { name, address, port, cpus, memory, maxPods, clientCa, tlsCert, tlsKey } = wishes;
  checkTlsFiles(tlsCert, tlsKey);
  return {
    identity: await identityOf(wishes),
    ...(name === undefined ? {} : { name }),
    ...(address === undefined ? {} : { address }),
    ...(port === undefined ? {} : { port: parseInteger("port", port, 0, 65_535) }),
    capacity: {
      ...(cpus === undefined ? {} : { cpus: parseInteger("cpus", cpus, 1, 4096) }),
      ...(memory === undefined ? {} : { memoryBytes: memoryBytes(memory) }),
      ...(maxPods === undefined ? {} : { pods: parseInteger("max-pods", maxPods, 1, 10_000) }),
    },
    labels: labels(wishes.label ?? []),
    untainted: wishes.untainted === true,
    hostPaths: (wishes.allowHostPath ?? []).map(hostPath),
    ...(clientCa === undefined ? {} : { clientCa: await readGiven("client-ca", clientCa) }),
    ...(tlsCert === undefined || tlsKey === undefined
      ? {}
      : {
          serving: {
            cert: await readGiven("tls-cert", tlsCert),
            key: await readGiven("tls-key", tlsKey),
          },
        }),
    ...(wishes.volumeQuota === undefined ? {} : { volumeQuota: quotaBytes(wishes.volumeQuota) }),
    ...(wishes.gracePeriod === undefined
      ? {}
      : { gracePeriod: parseInteger("grace-period", wishes.gracePeriod, 8, 3600) }),
    peers: wishes.peers === true,
    ...(wishes.suspended === undefined
      ? {}
      : { suspended: parseInteger("suspended", wishes.suspended, 0, 10_000) }),
    driver: wishes.driver ?? "auto",
  };
}
