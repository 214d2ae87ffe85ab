/** `vmsan node`: this host as a node of a Kubernetes cluster. */
import { Option } from "commander";
import type { Command } from "commander";
import type { NodeWishes } from "../../../node/options.ts";
import { collect, command, collectList, interruptSignal, runs } from "../../command.ts";

interface JoinFlags {
  token: string;
  ca?: string;
  caCertHash?: string;
  name?: string;
}

/** The definition. */
export function nodeCommand(): Command {
  const target = command("node", "this host as a node of a Kubernetes cluster");
  target.addCommand(runDefinition());
  target.addCommand(joinDefinition());
  return target;
}

function runDefinition(): Command {
  const target = command("run", "serve pods as VMs; when it is ended, the VMs go on")
    .option("--kubeconfig <file>", "who this node is (what it joined as, else the pod's account)")
    .option("--context <name>", "of the kubeconfig (its current one)")
    .option("--name <name>", "of the node (its certificate's, else the host's)")
    .option("--address <ip>", "by which the API server reaches this host")
    .option("--port <port>", "of the kubelet API (10250)")
    .option("--cpus <number>", "processors for pods (all)")
    .option("--memory <size>", "memory for pods (all but a rest)")
    .option("--max-pods <number>", "pods at a time (110)")
    .option("--label <key=value>", "of the node, repeatable", collect)
    .option("--untainted", "let pods come that do not tolerate vmsan.io/node")
    .option(
      "--allow-host-path <paths>",
      "directories that pods may have by hostPath; :ro for reading alone",
      collectList,
    )
    .option("--volume-quota <size>", "of volumes that the pods of one namespace name (20Gi)")
    .option(
      "--peers",
      "have layers of images from other nodes that have them, and let those have this one's",
    )
    .option("--suspended <number>", "pods whose memory is kept after their removal (16)")
    .option("--client-ca <file>", "who has signed the API server's client certificate, PEM")
    .option("--tls-cert <file>", "certificate of the kubelet API, PEM (requested from the cluster)")
    .option("--tls-key <file>", "its private key, PEM")
    .option("--grace-period <seconds>", "the control plane's node-monitor-grace-period (40)")
    .addOption(
      new Option("--driver <driver>", "of its VMs").choices([
        "auto",
        "firecracker",
        "qemu",
        "fake",
      ]),
    );
  return runs<NodeWishes>(target, async ({ flags, output }) => {
    const interrupt = interruptSignal();
    const { nodeOptions } = await import("../../../node/options.ts");
    const { startNode } = await import("../../../node/node.ts");
    const node = await startNode(await nodeOptions(flags));
    const { name, address, port } = node;
    output.result({ name, address, port }, `node ${name} serves on ${address}:${port}`);
    await interrupt.come();
    await node.close();
    interrupt.dispose();
  });
}

function joinDefinition(): Command {
  const target = command("join <url>", "make this host a node, with a bootstrap token")
    .requiredOption("--token <token>", "ID.SECRET; - reads it from standard input")
    .option("--ca <file>", "certificates of the cluster's authority, PEM")
    .option("--ca-cert-hash <hash>", "sha256:… of the authority's key, instead of --ca")
    .option("--name <name>", "of the node (the host's)")
    .addHelpText("after", AFTER);
  return runs<JoinFlags>(target, async ({ flags, output }, url: string) => {
    const interrupt = interruptSignal();
    const { joinCluster } = await import("../../../node/join/join.ts");
    const { name, kubeconfig } = await joinCluster({ ...flags, url, signal: interrupt.signal });
    interrupt.dispose();
    output.result({ name, kubeconfig }, `${name} has joined; start it: vmsan node run`);
  });
}

const AFTER = `
A token is made in the cluster (kubeadm token create), and is used once: the node then has a
certificate of its own, which it renews. Waits until the request is approved. See docs/cluster.md.`;
