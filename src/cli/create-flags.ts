/** The flags that say what VM to make: shared by `create` and `run`. */
import { Option } from "commander";
import type { Command } from "commander";
import type { CreateOptions } from "../client/options.ts";
import { VmsanError } from "../model/errors.ts";
import type { DriverName, EndAction } from "../model/vm.ts";
import { parseMountWord } from "../util/mounts.ts";
import { collect, collectList } from "./command.ts";
import { withCallersValues } from "./environment.ts";
import { addPolicyFlags, policyOptions } from "./policy-flags.ts";
import type { PolicyFlags } from "./policy-flags.ts";
import { addNetworkFlags, networkOptions } from "./network-flags.ts";
import type { NetworkFlags } from "./network-flags.ts";

/** What commander makes of the flags below. */
export interface CreateFlags extends PolicyFlags, NetworkFlags {
  vcpus?: string;
  memory?: string;
  disk?: string;
  diskMode?: "overlay" | "flat";
  fromImage?: string;
  runtime?: string;
  kernel?: string;
  rootfs?: string;
  timeout?: string;
  onTimeout?: EndAction;
  idleTimeout?: string;
  onIdle?: EndAction;
  project?: string;
  publishPort?: string[];
  name?: string;
  driver?: DriverName | "auto";
  env?: string[];
  user?: string;
  workdir?: string;
  label?: string[];
  pull?: "missing" | "always" | "never";
  platform?: string;
  caFile?: string;
  secret?: string[];
  init?: boolean | string;
  kernelArg?: string[];
  sysctl?: string[];
  bootTimeout?: string;
  volume?: string[];
  mount?: string[];
  warm?: boolean;
  seccomp?: boolean;
  pidNs?: boolean;
  cgroup?: boolean;
  netns?: boolean;
}

/** An option that says what is done with a VM. */
function endOption(flags: string, description: string): Option {
  return new Option(flags, description).choices(["suspend", "stop", "remove"]);
}

/** The option that gives a VM secrets, also one that is made of another. */
export function secretOption(): Option {
  return new Option(
    "--secret <spec>",
    "NAME=env[:VAR]|file:PATH[@domain,...]: put into requests to those domains, unseen by the VM; repeatable",
  ).argParser(collect);
}

/** The option that publishes ports, also of a VM that is made of another. */
export function publishOption(): Option {
  return new Option(
    "-p, --publish-port <list>",
    "[ADDRESS:]HOST:GUEST[/udp], or PORT for both; on 127.0.0.1 without ADDRESS; comma list, repeatable",
  ).argParser(collectList);
}

/** Add the flags that choose the VM's machine, network and defaults. */
export function addCreateFlags(target: Command): Command {
  target
    .option("--vcpus <n>", "virtual CPUs, 1-32 (default: 1)")
    .option("-m, --memory <size>", "MiB, or with unit: 512m, 2g (default: 512)")
    .option("--disk <size>", "size of the VM's disk: 10gb (default: 10gb)")
    .addOption(
      new Option("--disk-mode <mode>", "shared base and own upper disk, or one flat disk").choices([
        "overlay",
        "flat",
      ]),
    )
    .option("--kernel <path>", "boot this kernel instead of the selected one")
    .option("--kernel-arg <word>", "further argument of the kernel; repeatable", collect)
    .option("--sysctl <key=value>", "setting of the kernel, at each boot; repeatable", collect)
    .option("--boot-timeout <duration>", "longest boot (default: what the host needs)")
    .option("--timeout <duration>", "stop the VM after: 30s, 5m, 1h; a bare number is minutes")
    .addOption(endOption("--on-timeout <action>", "what happens then (default: stop)"))
    .option("--idle-timeout <duration>", "time without use after which --on-idle happens")
    .addOption(endOption("--on-idle <action>", "what happens then (default: suspend)"))
    .option("--project <name>", "label for grouping")
    .option("--name <name>", "unique name, usable wherever an ID is")
    .option("--label <key=value>", "label; repeatable", collect)
    .addOption(publishOption());
  return addPolicyFlags(addNetworkFlags(target))
    .option(
      "-v, --volume <source:path>",
      "volume or ./directory at a path of the guest; /path alone: of the VM's own; :ro; repeatable",
      collect,
    )
    .option(
      "--mount <spec>",
      "in words: type=volume,src=NAME,dst=/path,ro; type=tmpfs,dst=/path",
      collect,
    )
    .addOption(
      new Option("--driver <name>", "what runs the VM (default: auto)").choices([
        "auto",
        "firecracker",
        "qemu",
        "fake",
      ]),
    )
    .option(
      "-e, --env <key=value>",
      "environment of every command; KEY alone: from here; repeatable",
      collect,
    )
    .addOption(secretOption())
    .option("-u, --user <user>", "user of every command: name, uid, name:group")
    .option("-w, --workdir <path>", "working directory of every command")
    .addOption(
      new Option("--pull <when>", "when to ask the registry (default: missing)").choices([
        "missing",
        "always",
        "never",
      ]),
    )
    .option("--platform <os/arch>", "platform of a multi-platform image")
    .option("--ca-file <path>", "certificates of authorities to trust besides the system's")
    .option("--init [path]", "boot the image's own init (default path: /sbin/init)")
    .option(
      "--warm",
      "start from a template of the image or a booted machine where there is one, and keep both",
    )
    .option("--no-warm", "boot, and keep no template")
    .option("--no-seccomp", "leave the VMM's seccomp filter off")
    .option("--no-pid-ns", "leave the VMM in this PID namespace")
    .option("--no-cgroup", "leave the VMM out of a cgroup of its own")
    .option(
      "--no-netns",
      "leave the VMM in this network namespace (with --network-policy none only)",
    );
}

/** `KEY=VALUE` labels as an object. @throws ERR_VALIDATION_FLAGS */
export function labels(entries: readonly string[] | undefined): Record<string, string> {
  return Object.fromEntries(
    (entries ?? []).map((entry) => {
      const at = entry.indexOf("=");
      if (at < 1) {
        throw new VmsanError({
          code: "ERR_VALIDATION_FLAGS",
          message: `Invalid label: ${JSON.stringify(entry)}`,
          why: "It takes KEY=VALUE.",
          fix: "For example: --label team=ci.",
        });
      }
      return [entry.slice(0, at), entry.slice(at + 1)];
    }),
  );
}

/** What `-v` and `--mount` say; undefined when neither is given. @throws ERR_VALIDATION_MOUNT */
function mounts(flags: CreateFlags): CreateOptions["mounts"] {
  if (flags.volume === undefined && flags.mount === undefined) return undefined;
  return [...(flags.volume ?? []), ...(flags.mount ?? []).map(parseMountWord)];
}

/** The SDK's options for these flags. @throws ERR_VALIDATION_FLAGS, ERR_VALIDATION_NETWORK_POLICY */
export function createOptions(flags: CreateFlags): CreateOptions {
  const given = {
    image: flags.fromImage,
    runtime: flags.runtime,
    rootfs: flags.rootfs,
    kernel: flags.kernel,
    name: flags.name,
    vcpus: flags.vcpus,
    memory: flags.memory,
    disk: flags.disk,
    diskMode: flags.diskMode,
    project: flags.project,
    driver: flags.driver,
    env: flags.env === undefined ? undefined : withCallersValues(flags.env, process.env),
    secrets: flags.secret,
    user: flags.user,
    workdir: flags.workdir,
    ports: flags.publishPort,
    timeout: flags.timeout,
    onTimeout: flags.onTimeout,
    idleTimeout: flags.idleTimeout,
    onIdle: flags.onIdle,
    ...policyOptions(flags),
    ...networkOptions(flags, flags.networkPolicy),
    pull: flags.pull,
    platform: flags.platform,
    caFile: flags.caFile,
    init: flags.init,
    mounts: mounts(flags),
    kernelArgs: flags.kernelArg,
    sysctls: flags.sysctl,
    bootTimeout: flags.bootTimeout,
    warm: flags.warm,
    seccomp: flags.seccomp,
    pidNamespace: flags.pidNs,
    cgroup: flags.cgroup,
    networkNamespace: flags.netns,
  };
  const defined = Object.fromEntries(
    Object.entries(given).filter(([, value]) => value !== undefined),
  ) as CreateOptions;
  return { ...defined, labels: labels(flags.label) };
}
