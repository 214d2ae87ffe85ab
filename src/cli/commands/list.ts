/** `vmsan list`: all VMs as they are now. */
import type { Command } from "commander";
import type { VmView } from "../../model/api.ts";
import { command, runs } from "../command.ts";
import { plain, table } from "../output.ts";
import { listEntry } from "../vm-reply.ts";

/** The definition. */
export function listCommand(): Command {
  const target = command("list", "list all VMs").alias("ls");
  return runs(target, async (context) => {
    const views = await (await context.vmsan()).list();
    const statuses: Record<string, number> = {};
    for (const { status } of views) statuses[status] = (statuses[status] ?? 0) + 1;
    context.output.result(
      { count: views.length, statuses, vms: views.map(listEntry) },
      table([["ID", "NAME", "STATUS", "IMAGE", "DRIVER", "CREATED"], ...views.map(row)]),
    );
  });
}

function row(view: VmView): string[] {
  return [
    view.id,
    view.name ?? "-",
    view.status,
    plain(view.image?.name ?? view.runtime ?? view.rootfs),
    view.driver,
    view.createdAt,
  ];
}
