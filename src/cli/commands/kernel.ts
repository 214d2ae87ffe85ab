/** `vmsan kernel …`: the kernels that guests boot. */
import type { Command } from "commander";
import type { KernelList } from "../../model/api/kernels.ts";
import { formatBytes } from "../../util/units.ts";
import { command, runs } from "../command.ts";
import { toEach } from "../each.ts";
import { plain, table } from "../output.ts";

/** The list as a table; the kernel of new VMs has a star. */
function listText(list: KernelList): string {
  const rows = list.kernels.map((kernel) => [
    kernel.current ? "*" : "",
    plain(kernel.id),
    kernel.arch,
    kernel.origin,
    kernel.modulesDisk ? `${kernel.modules} + disk` : String(kernel.modules),
    formatBytes(kernel.sizeBytes),
    kernel.usedBy.join(",") || "-",
  ]);
  return table([["", "ID", "ARCH", "ORIGIN", "MODULES", "SIZE", "USED BY"], ...rows]);
}

/** `kernel ls`. */
function lsCommand(): Command {
  return runs(
    command("ls", "list kernels; * marks that of new VMs").alias("list"),
    async (context) => {
      const list = await (await context.vmsan()).kernels.list();
      context.output.result(list, listText(list));
    },
  );
}

/** `kernel add`. */
function addCommand(): Command {
  const target = command("add <file>", "verify, unpack and keep a kernel").option(
    "--modules <dir>",
    "its /lib/modules/VERSION; without one everything must be built in",
  );
  return runs<{ modules?: string }>(target, async (context, file: string) => {
    const { modules } = context.flags;
    const { kernels } = await context.vmsan();
    const kernel = await kernels.add(file, modules === undefined ? {} : { modulesDir: modules });
    context.output.result(kernel, kernel.id);
    const others = kernel.modulesDisk ? ", all others on demand" : "";
    context.output.detail(
      `${kernel.version}, ${kernel.arch}, ${kernel.modules} modules at boot${others}`,
    );
    if (!kernel.current && !context.output.json) {
      context.output.note(`New VMs boot it after: vmsan kernel use ${kernel.id}`);
    }
  });
}

/** `kernel use`. */
function useCommand(): Command {
  const target = command("use <id>", "choose the kernel of new VMs; `default`: vmsan chooses");
  return runs(target, async (context, id: string) => {
    const list = await (await context.vmsan()).kernels.use(id);
    const current = list.kernels.find((kernel) => kernel.current);
    context.output.result(
      { chosen: list.chosen, ...(current === undefined ? {} : { current: current.id }) },
      current?.id ?? list.chosen,
    );
  });
}

/** `kernel rm`. */
function rmCommand(): Command {
  return runs(
    command("rm <id...>", "remove kernels that no VM boots").aliases(["remove", "delete"]),
    async (context, ids: string[]) => {
      const { kernels } = await context.vmsan();
      return await toEach(context, ids, { all: "removed", one: "id" }, (id) => kernels.remove(id));
    },
  );
}

/** The definition. */
export function kernelCommand(): Command {
  const target = command("kernel", "kernels that guests boot");
  for (const child of [lsCommand(), addCommand(), useCommand(), rmCommand()]) {
    target.addCommand(child);
  }
  return target;
}
