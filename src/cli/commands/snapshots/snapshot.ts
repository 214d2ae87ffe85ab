/** `snapshot …` and `fork`: VMs of one instant, kept or made into others. */
import type { Command } from "commander";
import type { CloneOptions } from "../../../client/clone-options.ts";
import type { Vm } from "../../../client/vm.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import type { SnapshotView } from "../../../model/api.ts";
import { formatBytes } from "../../../util/units.ts";
import { collect, command, runs } from "../../command.ts";
import type { Context } from "../../command.ts";
import { toEach } from "../../each.ts";
import { createOptions, publishOption, secretOption } from "../../create-flags.ts";
import type { CreateFlags } from "../../create-flags.ts";
import { addNetworkFlags } from "../../network-flags.ts";
import { plain, table } from "../../output.ts";
import { addPolicyFlags } from "../../policy-flags.ts";
import { createReply } from "../../vm-reply.ts";
import { withProgress } from "../../with-progress.ts";
import type { WorkHandles } from "../../with-progress.ts";

/** Make several VMs, with progress, and report them. @returns the exit status */
export async function makeMany(
  context: Context<object>,
  make: (vmsan: Vmsan, work: WorkHandles) => Promise<Vm[]>,
): Promise<number> {
  const vmsan = await context.vmsan();
  return await withProgress(
    context,
    async (work) => await make(vmsan, work),
    (vms) =>
      context.output.result(
        { count: vms.length, vms: vms.map((vm) => createReply(vm.view)) },
        vms.map((vm) => vm.id).join("\n"),
      ),
  );
}

/** What a reply says of a snapshot: the reference's name for its ID, and all that is known. */
function reply(view: SnapshotView): Record<string, unknown> {
  return { snapshotId: view.id, ...view, name: view.name ?? null };
}

/** `snapshot create`. */
function createSnapshotCommand(): Command {
  const target = command("create <vm>", "take a snapshot of a VM, with its memory and disk")
    .option("--name <name>", "unique name, usable wherever its ID is")
    .option("--no-resume", "leave the VM paused")
    .option("--disk-only", "of the disk alone; also of a stopped VM");
  return runs<{ name?: string; resume: boolean; diskOnly?: boolean }>(
    target,
    async (context, ref: string) => {
      const { name, resume, diskOnly } = context.flags;
      const { snapshots } = await context.vmsan();
      return await withProgress(
        context,
        async (work) =>
          await snapshots.create(ref, {
            ...work,
            resume,
            ...(name === undefined ? {} : { name }),
            ...(diskOnly === undefined ? {} : { diskOnly }),
          }),
        (view) => {
          context.output.detail(`${view.vm.id} stood still for ${view.pauseMs} ms`);
          context.output.result(reply(view), view.id);
        },
      );
    },
  );
}

/** `snapshot ls`. */
function lsCommand(): Command {
  return runs(command("list", "list snapshots").alias("ls"), async (context) => {
    const views = await (await context.vmsan()).snapshots.list();
    const rows = views.map((view) => [
      view.id,
      view.name ?? "-",
      view.vm.name ?? view.vm.id,
      plain(view.image?.name ?? view.runtime ?? "-"),
      view.memory ? "memory" : "disk",
      formatBytes(view.sizes.stored),
      formatBytes(view.sizes.shared),
      view.createdAt,
    ]);
    context.output.result(
      { count: views.length, snapshots: views.map(reply) },
      table([["ID", "NAME", "VM", "IMAGE", "HOLDS", "STORED", "SHARED", "CREATED"], ...rows]),
    );
  });
}

/** `snapshot inspect`. */
function inspectCommand(): Command {
  const target = command("inspect <snapshot>", "everything known of a snapshot, as JSON");
  return runs(target, async (context, ref: string) => {
    const view = await (await context.vmsan()).snapshots.get(ref);
    context.output.result(reply(view), JSON.stringify(view, null, 2));
  });
}

/** `snapshot rm`. */
function rmCommand(): Command {
  const target = command("delete <snapshot...>", "remove snapshots; VMs made of them stay")
    .alias("rm")
    .alias("remove");
  return runs(target, async (context, refs: string[]) => {
    const { snapshots } = await context.vmsan();
    const keys = { all: "snapshotIds", one: "snapshotId", results: true } as const;
    return await toEach(context, refs, keys, (ref) => snapshots.remove(ref));
  });
}

/** `snapshot prune`. */
function pruneCommand(): Command {
  const target = command("prune", "remove snapshots without a name that no VM was made of").option(
    "-a, --all",
    "also those with a name",
  );
  return runs<{ all?: boolean }>(target, async (context) => {
    const { snapshots } = await context.vmsan();
    const report = await snapshots.prune({ all: context.flags.all === true });
    context.output.result(
      report,
      `${report.snapshots.length} snapshots removed, ${formatBytes(report.freedBytes)} freed`,
    );
  });
}

/** `snapshot export`. */
function exportCommand(): Command {
  const target = command(
    "export <snapshot>",
    "write a snapshot as one file, for another host",
  ).requiredOption("-o, --output <file>", "file to write; - for standard output");
  return runs<{ output: string }>(target, async (context, ref: string) => {
    const { output: file } = context.flags;
    const { snapshots } = await context.vmsan();
    await snapshots.export(ref, file === "-" ? process.stdout : file);
    if (file !== "-") context.output.result({ output: file, snapshotId: ref }, file);
  });
}

/** `snapshot import`. */
function importCommand(): Command {
  const target = command("import", "take in an exported snapshot, from someone you trust")
    .option("-i, --input <file>", "file to read; - for standard input", "-")
    .option("--name <name>", "instead of the name that it had");
  return runs<{ input: string; name?: string }>(target, async (context) => {
    const { input, name } = context.flags;
    const { snapshots } = await context.vmsan();
    return await withProgress(
      context,
      async (work) =>
        await snapshots.import(input === "-" ? process.stdin : input, {
          ...work,
          ...(name === undefined ? {} : { name }),
        }),
      (view) => context.output.result(reply(view), view.id),
    );
  });
}

/** The definition of `snapshot`. */
export function snapshotCommand(): Command {
  const target = command("snapshot", "take, list, move and remove snapshots of VMs");
  for (const make of [
    createSnapshotCommand,
    lsCommand,
    inspectCommand,
    rmCommand,
    pruneCommand,
    exportCommand,
    importCommand,
  ]) {
    target.addCommand(make());
  }
  return target;
}

interface ForkFlags extends CreateFlags {
  count?: string;
}

/** The definition of `fork`. */
export function forkCommand(): Command {
  const target = command("fork <vm>", "make VMs of a running one, which go on where it is now")
    .option("-n, --count <n>", "how many (default: 1)")
    .option("--name <name>", "name of the new VM; a number is added when there are several")
    .option("--label <key=value>", "label; repeatable", collect)
    .option("--project <name>", "label for grouping")
    .option("--timeout <duration>", "stop them after: 30s, 5m, 1h; a bare number is minutes")
    .option("-e, --env <key=value>", "environment of new commands; repeatable", collect)
    .addOption(publishOption());
  addPolicyFlags(addNetworkFlags(target)).addOption(secretOption());
  return runs<ForkFlags>(target, async (context, ref: string) => {
    const { count, ...flags } = context.flags;
    const options: CloneOptions = {
      ...createOptions(flags),
      ...(count === undefined ? {} : { count }),
    };
    return await makeMany(context, (vmsan, work) => vmsan.fork(ref, options, work));
  });
}

/** The definition of `restore`. */
export function restoreCommand(): Command {
  const target = command(
    "restore <vm> <snapshot>",
    "take a VM back to a snapshot of it; its name and ports stay",
  );
  return runs(target, async (context, ref: string, snapshot: string) => {
    const vm = await (await context.vmsan()).get(ref);
    return await withProgress(
      context,
      async (work) => await vm.restore(snapshot, work),
      () => context.output.result(createReply(vm.view), vm.id),
    );
  });
}
