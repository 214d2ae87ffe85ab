/** The flags that put a VM into private networks: shared by `create`, `run` and `fork`. */
import type { Command } from "commander";
import type { CreateOptions } from "../client/options.ts";
import { VmsanError } from "../model/errors.ts";
import { collect } from "./command.ts";

/** What commander makes of the flags below. */
export interface NetworkFlags {
  network?: string[];
  networkAlias?: string[];
  ip?: string;
}

/** Policies, and words of Docker's that are none here. */
const POLICIES = ["allow-all", "deny-all", "custom"];
const DOCKERS = ["host", "bridge", "default"];

/** Add the flags. */
export function addNetworkFlags(target: Command): Command {
  return target
    .option(
      "--network <name>",
      "private network to be in, repeatable; none: no network interface at all",
      collect,
    )
    .option("--network-alias <name>", "further name of the VM in those; repeatable", collect)
    .option("--ip <address>", "its address, in one network (default: the next free one)");
}

/** A wrong combination of flags. */
function wrong(message: string, why: string, fix: string, code = "ERR_VALIDATION_FLAGS"): Error {
  return new VmsanError({ code, message, why, fix });
}

/**
 * The SDK's options for these flags.
 * @param networkPolicy what `--network-policy` says
 * @throws ERR_VALIDATION_FLAGS, ERR_VALIDATION_NETWORK_POLICY, ERR_VALIDATION_POLICY_CONFLICT
 */
export function networkOptions(
  flags: NetworkFlags,
  networkPolicy: string | undefined,
): Pick<CreateOptions, "networks" | "networkPolicy"> {
  const { network: names = [], networkAlias: aliases, ip } = flags;
  const policy = names.find((name) => POLICIES.includes(name) || DOCKERS.includes(name));
  if (policy !== undefined) {
    const fix = POLICIES.includes(policy) ? policy : "allow-all, deny-all or custom";
    throw wrong(
      `Invalid --network: ${JSON.stringify(policy)}`,
      "It takes the name of a private network, or none; what a VM may reach beyond is a policy.",
      `Use --network-policy ${fix}.`,
      "ERR_VALIDATION_NETWORK_POLICY",
    );
  }
  if (names.includes("none")) {
    const other = names.find((name) => name !== "none");
    if (other !== undefined || (networkPolicy ?? "none") !== "none") {
      throw wrong(
        `Cannot use --network none with ${other === undefined ? `--network-policy ${networkPolicy}` : `--network ${other}`}`,
        "A VM without a network interface has no policy and is in no network.",
        "Give one of them.",
        "ERR_VALIDATION_POLICY_CONFLICT",
      );
    }
    return { networkPolicy: "none" };
  }
  if (names.length === 0 && (aliases !== undefined || ip !== undefined)) {
    const flag = aliases === undefined ? "--ip" : "--network-alias";
    throw wrong(`Cannot use ${flag} alone`, "It is about a private network.", "Add --network.");
  }
  if (ip !== undefined && names.length > 1) {
    throw wrong(
      "Cannot use --ip with several networks",
      "The address would be in all of them.",
      "Make the VM in one of them, and put it into the others: vmsan network connect NAME VM --ip …",
    );
  }
  const networks = names.map((network) => ({
    network,
    ...(aliases === undefined ? {} : { aliases }),
    ...(ip === undefined ? {} : { address: ip }),
  }));
  return names.length === 0 ? {} : { networks };
}
