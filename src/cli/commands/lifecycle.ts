/** `start`, `update`, `stop`, `remove`, `pause`, `resume`, `inspect`: one VM's or several VMs' life. */
import type { Command } from "commander";
import type { UpdateOptions } from "../../client/lives.ts";
import type { Vmsan } from "../../client/vmsan.ts";
import type { VmOutcome } from "../../model/api.ts";
import { asVmsanError } from "../../model/errors.ts";
import { command, runs } from "../command.ts";
import type { Context } from "../command.ts";
import { warnOfAssumedKvm } from "../host-warning.ts";
import { progressView } from "../progress.ts";
import { guestIp } from "../vm-reply.ts";

/** Do something to each of several VMs; one failure does not keep the others from it. */
async function forEach(
  context: Context<object>,
  refs: readonly string[],
  body: (vmsan: Vmsan, ref: string) => Promise<unknown>,
): Promise<number> {
  const vmsan = await context.vmsan();
  const results = await Promise.all(
    refs.map(async (vmId): Promise<VmOutcome> => {
      try {
        await body(vmsan, vmId);
        return { vmId, success: true };
      } catch (error) {
        return { vmId, success: false, error: asVmsanError(error, "failed").toJSON() };
      }
    }),
  );
  const { output } = context;
  const done = results.filter(({ success }) => success);
  const failed = results.filter(({ success }) => !success);
  const first = failed[0]?.error;
  output.result(
    {
      vmIds: done.map(({ vmId }) => vmId),
      results,
      // A script that looks for an error finds one also here.
      ...(first === undefined ? {} : { error: first }),
    },
    done.map(({ vmId }) => vmId).join("\n"),
  );
  if (!output.json) {
    for (const { error } of failed) {
      output.note(`error: ${error?.message} [${error?.code}]`, `  why: ${error?.why ?? ""}`);
      if (error?.fix !== undefined) output.note(`  fix: ${error.fix}`);
    }
  }
  return failed.length === 0 ? 0 : 1;
}

/** `start ID`. */
export function startCommand(): Command {
  const target = command("start <vm>", "start a stopped VM").option(
    "--boot-timeout <duration>",
    "longest boot, now and from now on (default: as it was)",
  );
  return runs<{ bootTimeout?: string }>(target, async (context, ref: string) => {
    const view = progressView(context.output, false);
    warnOfAssumedKvm(context.output);
    try {
      const vm = await (
        await context.vmsan()
      ).start(ref, {
        onProgress: view.sink,
        ...context.flags,
      });
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

/** `stop ID…`. */
export function stopCommand(): Command {
  const target = command("stop <vm...>", "stop VMs: sync and power off, by force after 10 s");
  return runs(target, (context, refs: string[]) =>
    forEach(context, refs, (vmsan, ref) => vmsan.stop(ref)),
  );
}

/** `remove ID…`. */
export function removeCommand(): Command {
  const target = command("remove <vm...>", "remove VMs with their disks")
    .alias("rm")
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
