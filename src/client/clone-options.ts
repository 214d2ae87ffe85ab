/** What SDK users may write of VMs made of a snapshot, made into the daemon's request. */
import type { CloneRequest } from "../model/api.ts";
import { VmsanError } from "../model/errors.ts";
import { checkPortsAgainstPolicy, parsePublishedPorts } from "../network/policy/parse.ts";
import { parseName } from "../util/names.ts";
import { parseDiskSize, parseInteger, parseMemory } from "../util/units.ts";
import { isolationOf, parseEnv, policyOf, timeLimits } from "./options.ts";
import type { CreateOptions, NetworkOptions } from "./options.ts";
import { textPath } from "./paths.ts";
import { memberships } from "./private-networks.ts";
import { secretRequests } from "./secrets/secrets.ts";

/** What may be said of VMs made of a snapshot; the rest is as it was in the snapshot. */
export interface CloneOptions extends Omit<CreateOptions, "snapshot"> {
  /** How many, 1–256; names get a number each. */
  count?: number | string;
}

/** Options that say what is on the disk or how the machine is made: a snapshot says that itself. */
const CONTRARY = [
  "image",
  "runtime",
  "rootfs",
  "diskMode",
  "init",
  "mounts",
  "kernelArgs",
  "sysctls",
  "bootTimeout",
  "pull",
  "platform",
  "caFile",
] as const;

const NETWORK: readonly (keyof NetworkOptions)[] = [
  "networkPolicy",
  "allowedDomains",
  "allowedCidrs",
  "deniedCidrs",
  "allowedPorts",
  "allowHostPorts",
  "allowIcmp",
  "allowUdp",
  "bandwidth",
];

/** The request for these options. @throws ERR_VALIDATION_* */
export function cloneRequest(options: CloneOptions): CloneRequest {
  for (const name of CONTRARY) {
    if (options[name] === undefined) continue;
    throw new VmsanError({
      code: "ERR_VALIDATION_FLAGS",
      message: `Cannot choose ${name} for a VM that is made of a snapshot or of another VM`,
      why: "What is on its disk is part of the snapshot.",
      fix: "Leave that out, or create a VM without a snapshot.",
    });
  }
  const ports = parsePublishedPorts(options.ports);
  const policy = NETWORK.some((name) => options[name] !== undefined)
    ? policyOf(options)
    : undefined;
  if (policy !== undefined) checkPortsAgainstPolicy(policy, ports);
  const { name, project, user, workdir, driver, kernel } = options;
  return {
    count: parseInteger("count", options.count ?? 1, 1, 256),
    ...(name === undefined ? {} : { name: parseName(name) }),
    ...(project === undefined ? {} : { project }),
    labels: options.labels ?? {},
    ...(options.env === undefined ? {} : { env: parseEnv(options.env) }),
    ...(user === undefined ? {} : { user }),
    ...(workdir === undefined ? {} : { workdir }),
    ...(policy === undefined ? {} : { policy }),
    ports,
    ...(options.networks === undefined ? {} : { networks: memberships(options.networks) }),
    ...(options.secrets === undefined ? {} : { secrets: secretRequests(options.secrets) }),
    ...timeLimits(options),
    isolation: isolationOf(options),
    ephemeral: options.ephemeral ?? false,
    cold: options.cold ?? false,
    ...(options.vcpus === undefined ? {} : { vcpus: parseInteger("vcpus", options.vcpus, 1, 32) }),
    ...(options.memory === undefined ? {} : { memMib: parseMemory(options.memory) }),
    ...(options.disk === undefined ? {} : { diskSizeBytes: parseDiskSize(options.disk) }),
    ...(driver === undefined || driver === "auto" ? {} : { driver }),
    ...(kernel === undefined ? {} : { kernel: textPath(kernel) }),
  };
}
