/** The flags by which VMs are pods of a cluster, and which commands there are for those. */
import type { Command } from "commander";
import type { ClusterOptions } from "../client/vmsan.ts";
import { VmsanError } from "../model/errors.ts";

/** What commander makes of the flags. */
export interface ClusterFlags extends ClusterOptions {
  cluster?: boolean;
}

/** Flags that are followed by a value, as they stand before the command. */
export const CLUSTER_VALUES = ["--context", "--namespace", "--kubeconfig"];

/** Commands that mean something for pods; what of them cannot be done is refused where it is asked for. */
const OFFERED = new Set(
  "run create exec connect list inspect stop remove logs stats network port-forward upload download cp ps wait kill start update fork pause suspend resume restore snapshot commit events serve".split(
    " ",
  ),
);

/** Add the flags. */
export function addClusterFlags(target: Command): Command {
  return target
    .option("--cluster", "VMs are pods of a Kubernetes cluster of vmsan hosts (docs/cluster.md)")
    .option("--context <name>", "with --cluster: of the kubeconfig (default: its current one)")
    .option("--namespace <name>", "with --cluster: where the pods are (default: the context's)")
    .option("--kubeconfig <file>", "with --cluster (default: KUBECONFIG, else ~/.kube/config)");
}

/** Which cluster the flags mean; undefined: none. @throws ERR_VALIDATION_FLAGS */
export function clusterOptions({
  cluster,
  context,
  namespace,
  kubeconfig,
}: ClusterFlags): ClusterOptions | undefined {
  const options = {
    ...(context === undefined ? {} : { context }),
    ...(namespace === undefined ? {} : { namespace }),
    ...(kubeconfig === undefined ? {} : { kubeconfig }),
  };
  if (cluster === true) return options;
  const [first] = Object.keys(options);
  if (first === undefined) return undefined;
  throw new VmsanError({
    code: "ERR_VALIDATION_FLAGS",
    message: `--${first} says nothing without --cluster`,
    why: "It belongs to a cluster, and VMs are this host's by themselves.",
    fix: "Add --cluster before the command, or leave it out.",
  });
}

/** The cluster that a command is for, by the flags before it. @throws ERR_VALIDATION_FLAGS, ERR_CLUSTER_UNSUPPORTED */
export function clusterOf(target: Command): ClusterOptions | undefined {
  let [root, name]: [Command, string] = [target, target.name()];
  while (root.parent !== null) {
    if (root.parent.parent === null) name = root.name();
    root = root.parent;
  }
  const options = clusterOptions(root.opts<ClusterFlags>());
  if (options === undefined || OFFERED.has(name)) return options;
  throw new VmsanError({
    code: "ERR_CLUSTER_UNSUPPORTED",
    message: `vmsan ${name}: not offered on a cluster`,
    why: "It is about one host.",
    fix: "Leave --cluster out, and run it on that host; docs/cluster.md says what pods can.",
  });
}
