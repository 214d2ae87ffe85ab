/** `start`, `update`, `stop`, `remove`, `pause`, `resume`, `inspect`: one VM's or several VMs' life. */
import type { Command } from "commander";
import type { UpdateOptions } from "../../client/lives.ts";
import type { Vmsan } from "../../client/vmsan.ts";
import { command, runs } from "../command.ts";
import type { Context } from "../command.ts";
import { toEach } from "../each.ts";
import { warnOfAssumedKvm } from "../host-warning.ts";
import { progressView } from "../progress.ts";
import { guestIp } from "../vm-reply.ts";
import { invalid, parseDuration, parseInteger } from "../../util/units.ts";

/** What a reply about several VMs calls them. */
const VMS = { all: "vmIds", one: "vmId", results: true } as const;

/** Do something to each of several VMs; one failure does not keep the others from it. */
async function forEach(
  context: Context<object>,
  refs: readonly string[],
  body: (vmsan: Vmsan, ref: string) => Promise<unknown>,
): Promise<number> {
  const vmsan = await context.vmsan();
  return await toEach(context, refs, VMS, async (ref) => await body(vmsan, ref));
}

/** `start ID…`. */
export function startCommand(): Command {
  const target = command("start <vm...>", "start stopped VMs").option(
    "--boot-timeout <duration>",
    "longest boot, now and from now on (default: as it was)",
  );
  return runs<{ bootTimeout?: string }>(target, async (context, refs: string[]) => {
    const view = progressView(context.output, false);
    warnOfAssumedKvm(context.output);
    const start = async (vmsan: Vmsan, ref: string) =>
      await vmsan.start(ref, { onProgress: view.sink, ...context.flags });
    try {
      const [ref, ...others] = refs;
      if (ref === undefined || others.length > 0) return await forEach(context, refs, start);
      const vm = await start(await context.vmsan(), ref);
      view.close();
      context.output.result(
        {
          vmId: vm.id,
          pid: vm.view.pid ?? null,
          guestIp: guestIp(vm.view),
          networking: vm.view.guestNetwork !== undefined,
        },
        vm.id,
      );
      return 0;
    } finally {
      view.close();
    }
  });
}

/** `update ID`. */
export function updateCommand(): Command {
  const target = command("update <vm>", "change the size of a VM: the disk also while it runs")
    .option("--disk <size>", "larger than it is: 20gb")
    .option("-m, --memory <size>", "MiB, or with unit: 512m, 2g; while it is stopped")
    .option("--vcpus <n>", "virtual CPUs, 1-32; while it is stopped");
  return runs<UpdateOptions>(target, async (context, ref: string) => {
    const vm = await (await context.vmsan()).update(ref, context.flags);
    const { id, diskSizeBytes, memMib, vcpus } = vm.view;
    context.output.result({ vmId: id, diskSizeBytes, memMib, vcpus }, id);
  });
}

/** How long a guest has, in milliseconds; a bare number is seconds, as elsewhere for `stop`. */
function graceOf(text: string): number {
  if (/^\d+$/.test(text)) return 1000 * parseInteger("--time", text, 0, 3600);
  const ms = parseDuration(text);
  if (ms <= 3_600_000) return ms;
  throw invalid("FLAGS", "--time", text, "It is an hour at most.", "For example: -t 1h.");
}

/** `stop ID…`. */
export function stopCommand(): Command {
  const target = command("stop <vm...>", "stop VMs: sync and power off, then by force").option(
    "-t, --time <duration>",
    "how long the guest has until then: 30s, 2m; a bare number is seconds (default: 10s)",
  );
  return runs<{ time?: string }>(target, async (context, refs: string[]) => {
    const { time } = context.flags;
    const graceMs = time === undefined ? undefined : graceOf(time);
    return await forEach(context, refs, (vmsan, ref) => vmsan.stop(ref, graceMs));
  });
}

/** `remove ID…`. */
export function removeCommand(): Command {
  const target = command("remove <vm...>", "remove VMs with their disks")
    .aliases(["rm", "delete"])
    .option("-f, --force", "also running ones");
  return runs<{ force?: boolean }>(target, (context, refs: string[]) =>
    forEach(context, refs, (vmsan, ref) =>
      vmsan.remove(ref, { force: context.flags.force === true }),
    ),
  );
}

/** `pause ID…`. */
export function pauseCommand(): Command {
  return runs(command("pause <vm...>", "halt the CPUs of running VMs"), (context, refs: string[]) =>
    forEach(context, refs, async (vmsan, ref) => (await vmsan.get(ref)).pause()),
  );
}

/** `suspend ID…`. */
export function suspendCommand(): Command {
  const target = command("suspend <vm...>", "put VMs to sleep: memory to disk, no process");
  return runs(target, async (context, refs: string[]) => {
    const view = progressView(context.output, false);
    try {
      return await forEach(context, refs, async (vmsan, ref) => {
        await (await vmsan.get(ref)).suspend({ onProgress: view.sink });
      });
    } finally {
      view.close();
    }
  });
}

/** `resume ID…`. */
export function resumeCommand(): Command {
  return runs(
    command("resume <vm...>", "let paused VMs go on, wake suspended ones"),
    (context, refs: string[]) =>
      forEach(context, refs, async (vmsan, ref) => (await vmsan.get(ref)).resume()),
  );
}

/** `inspect ID`. */
export function inspectCommand(): Command {
  return runs(
    command("inspect <vm>", "everything known of a VM, as JSON"),
    async (context, ref: string) => {
      const vm = await (await context.vmsan()).get(ref);
      context.output.result(vm.view, JSON.stringify(vm.view, null, 2));
    },
  );
}
