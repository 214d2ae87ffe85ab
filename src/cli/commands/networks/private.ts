/** `vmsan network create …`: private networks, in which VMs reach each other. */
import type { Command } from "commander";
import type { PrivateNetworkView } from "../../../model/private-network.ts";
import { collect, command, runs } from "../../command.ts";
import { toEach } from "../../each.ts";
import { labels } from "../../create-flags.ts";
import { plain, table } from "../../output.ts";

/** The list as a table. */
function listText(networks: readonly PrivateNetworkView[]): string {
  const rows = networks.map(({ name, subnet, members, damaged, project }) => [
    plain(name),
    damaged === undefined ? subnet : "damaged",
    plain(project) || "-",
    members.map((member) => member.name ?? member.id).join(",") || "-",
  ]);
  return table([["NAME", "SUBNET", "PROJECT", "VMS"], ...rows]);
}

/** `network create`. */
function createCommand(): Command {
  const target = command("create <name>", "make a private network: VMs in it reach each other")
    .option("--subnet <cidr>", "its IPv4 addresses (default: a free /24)")
    .option("--project <name>", "label for grouping")
    .option("--label <key=value>", "label; repeatable", collect);
  return runs<{ subnet?: string; project?: string; label?: string[] }>(
    target,
    async (context, name: string) => {
      const { subnet, project, label } = context.flags;
      const { networks } = await context.vmsan();
      const network = await networks.create(name, {
        labels: labels(label),
        ...(subnet === undefined ? {} : { subnet }),
        ...(project === undefined ? {} : { project }),
      });
      context.output.result(network, network.name);
    },
  );
}

/** `network ls`. */
function lsCommand(): Command {
  const target = command("ls", "list private networks and who is in them").alias("list");
  return runs(target, async (context) => {
    const networks = await (await context.vmsan()).networks.list();
    context.output.result({ networks }, listText(networks));
  });
}

/** `network inspect`. */
function inspectCommand(): Command {
  const target = command("inspect <name>", "one private network in full, with members' addresses");
  return runs(target, async (context, name: string) => {
    const network = await (await context.vmsan()).networks.get(name);
    context.output.result(network, JSON.stringify(network, null, 2));
  });
}

/** `network rm`. */
function rmCommand(): Command {
  const target = command("rm <name...>", "remove private networks that no VM is in").aliases([
    "remove",
    "delete",
  ]);
  return runs(target, async (context, names: string[]) => {
    const { networks } = await context.vmsan();
    return await toEach(context, names, { all: "removed", one: "name" }, (name) =>
      networks.remove(name),
    );
  });
}

/** `network prune`. */
function pruneCommand(): Command {
  const target = command("prune", "remove all private networks that no VM is in");
  return runs(target, async (context) => {
    const report = await (await context.vmsan()).networks.prune();
    context.output.result(report, report.networks.join("\n"));
  });
}

/** `network connect`. */
function connectCommand(): Command {
  const target = command(
    "connect <name> <vm>",
    "put a VM into a private network, also a running one",
  )
    .option("--alias <name>", "further name of the VM in it; repeatable", collect)
    .option("--ip <address>", "its address (default: the next free one)");
  return runs<{ alias?: string[]; ip?: string }>(
    target,
    async (context, name: string, ref: string) => {
      const { alias, ip } = context.flags;
      const { networks } = await context.vmsan();
      const network = await networks.connect(name, ref, {
        ...(alias === undefined ? {} : { aliases: alias }),
        ...(ip === undefined ? {} : { address: ip }),
      });
      const member = network.members.find((each) => each.id === ref || each.name === ref);
      context.output.result(network, member?.address ?? "");
    },
  );
}

/** `network disconnect`. */
function disconnectCommand(): Command {
  const target = command("disconnect <name> <vm...>", "take VMs out of a private network");
  return runs(target, async (context, name: string, refs: string[]) => {
    const { networks } = await context.vmsan();
    for (const ref of refs) await networks.disconnect(name, ref);
    context.output.result({ network: name, disconnected: refs }, refs.join("\n"));
  });
}

/** The commands below `network`. */
export function privateNetworkCommands(): Command[] {
  return [
    createCommand(),
    lsCommand(),
    inspectCommand(),
    rmCommand(),
    pruneCommand(),
    connectCommand(),
    disconnectCommand(),
  ];
}
