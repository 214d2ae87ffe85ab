/** `vmsan list`: all VMs as they are now. */
import type { Command } from "commander";
import type { VmView } from "../../model/api.ts";
import { command, runs } from "../command.ts";
import { table } from "../output.ts";
import { damagedEntry, listEntry } from "../vm-reply.ts";

/** The definition. */
export function listCommand(): Command {
  const target = command("list", "list all VMs").alias("ls");
  return runs(target, async (context) => {
    const { vms: views, damaged } = await (await context.vmsan()).survey();
    const statuses: Record<string, number> = {};
    if (damaged.length > 0) statuses["error"] = damaged.length;
    for (const { status } of views) statuses[status] = (statuses[status] ?? 0) + 1;
    context.output.result(
      {
        count: views.length + damaged.length,
        statuses,
        vms: [...views.map(listEntry), ...damaged.map(damagedEntry)],
      },
      table([
        ["ID", "NAME", "STATUS", "IMAGE", "DRIVER", "CREATED"],
        ...views.map(row),
        ...damaged.map(({ id }) => [id, "-", "error", "-", "-", "-"]),
      ]),
    );
    for (const { id, why } of context.output.json ? [] : damaged) {
      context.output.note(`${id}: its record cannot be read: ${why}`, `  fix: vmsan rm -f ${id}`);
    }
  });
}

function row(view: VmView): string[] {
  return [
    view.id,
    view.name ?? "-",
    view.status,
    view.image?.name ?? view.runtime ?? view.rootfs,
    view.driver,
    view.createdAt,
  ];
}
