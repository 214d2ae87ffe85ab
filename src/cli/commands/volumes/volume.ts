/** `vmsan volume …`: file systems with a name, which outlive the VMs that use them. */
import type { Command } from "commander";
import type { VolumeView } from "../../../model/volume.ts";
import { formatBytes } from "../../../util/units.ts";
import { collect, command, runs } from "../../command.ts";
import { toEach } from "../../each.ts";
import { labels } from "../../create-flags.ts";
import { plain, table } from "../../output.ts";
import { withProgress } from "../../with-progress.ts";

/** The list as a table. */
function listText(volumes: readonly VolumeView[]): string {
  const rows = volumes.map((volume) => [
    plain(volume.name),
    `${formatBytes(volume.sizeBytes)}${volume.shared ? " shared" : ""}`,
    formatBytes(volume.storedBytes),
    volume.damaged === undefined ? volume.state : "damaged",
    volume.usedBy.join(",") || "-",
  ]);
  return table([["NAME", "SIZE", "STORED", "STATE", "USED BY"], ...rows]);
}

/** `volume create`. */
function createCommand(): Command {
  const target = command("create <name>", "make an empty volume")
    .option("--size <size>", "20gb; it takes up what is in it alone (default: 10gb)")
    .option(
      "--shared",
      "for any number of VMs that write at the same time: a directory of the host",
    )
    .option("--label <key=value>", "label; repeatable", collect);
  return runs<{ size?: string; shared?: true; label?: string[] }>(
    target,
    async (context, name: string) => {
      const { size, shared = false, label } = context.flags;
      const { volumes } = await context.vmsan();
      const options = { labels: labels(label), shared, ...(size === undefined ? {} : { size }) };
      const volume = await volumes.create(name, options);
      context.output.result(volume, volume.name);
    },
  );
}

/** `volume share`. */
function shareCommand(): Command {
  const target = command(
    "share <name>",
    "have a volume that nobody uses be for any number of VMs that write at the same time, with what is in it",
  );
  return runs(target, async (context, name: string) => {
    const volume = await (await context.vmsan()).volumes.share(name);
    context.output.result(volume, volume.name);
  });
}

/** `volume ls`. */
function lsCommand(): Command {
  const target = command("ls", "list volumes and who uses them").alias("list");
  return runs(target, async (context) => {
    const volumes = await (await context.vmsan()).volumes.list();
    context.output.result({ volumes }, listText(volumes));
  });
}

/** `volume inspect`. */
function inspectCommand(): Command {
  return runs(command("inspect <name>", "one volume in full"), async (context, name: string) => {
    const volume = await (await context.vmsan()).volumes.get(name);
    context.output.result(volume, JSON.stringify(volume, null, 2));
  });
}

/** `volume rm`. */
function rmCommand(): Command {
  const target = command("rm <name...>", "remove volumes that no VM mounts").aliases([
    "remove",
    "delete",
  ]);
  return runs(target, async (context, names: string[]) => {
    const { volumes } = await context.vmsan();
    return await toEach(context, names, { all: "removed", one: "name" }, (name) =>
      volumes.remove(name),
    );
  });
}

/** `volume prune`. */
function pruneCommand(): Command {
  const target = command(
    "prune",
    "remove all volumes that no VM mounts, not even a stopped one; those of keys' projects stay",
  );
  return runs(target, async (context) => {
    const report = await (await context.vmsan()).volumes.prune();
    context.output.result(report, report.volumes.join("\n"));
    context.output.detail(`${formatBytes(report.freedBytes)} freed`);
  });
}

/** `volume grow`. */
function growCommand(): Command {
  const target = command(
    "grow <name> <size>",
    "make a volume larger; with QEMU also while a VM writes to it",
  );
  return runs(target, async (context, name: string, size: string) => {
    const volume = await (await context.vmsan()).volumes.grow(name, size);
    context.output.result(volume, volume.name);
  });
}

/** `volume export`. */
function exportCommand(): Command {
  const target = command("export <name>", "write a volume as one file").requiredOption(
    "-o, --output <file>",
    "file to write; - for standard output",
  );
  return runs<{ output: string }>(target, async (context, name: string) => {
    const { output: file } = context.flags;
    const { volumes } = await context.vmsan();
    await volumes.export(name, file === "-" ? process.stdout : file);
    if (file !== "-") context.output.result({ output: file, volume: name }, file);
  });
}

/** `volume import`. */
function importCommand(): Command {
  const target = command("import <name>", "make a volume of what `export` has written").option(
    "-i, --input <file>",
    "file to read; - for standard input",
    "-",
  );
  return runs<{ input: string }>(target, async (context, name: string) => {
    const { input } = context.flags;
    const { volumes } = await context.vmsan();
    return await withProgress(
      context,
      async (work) => await volumes.import(name, input === "-" ? process.stdin : input, work),
      (volume) => context.output.result(volume, volume.name),
    );
  });
}

/** The definition. */
export function volumeCommand(): Command {
  const target = command("volume", "file systems with a name, which outlive their VMs");
  for (const child of [
    createCommand(),
    lsCommand(),
    inspectCommand(),
    rmCommand(),
    pruneCommand(),
    growCommand(),
    shareCommand(),
    exportCommand(),
    importCommand(),
  ]) {
    target.addCommand(child);
  }
  return target;
}
