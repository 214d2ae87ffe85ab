/** `vmsan image …`: the images of the store. */
import { Option } from "commander";
import type { Command } from "commander";
import type { SaveFormat } from "../../../model/api/images.ts";
import { formatBytes } from "../../../util/units.ts";
import { command, runs } from "../../command.ts";
import { toEach } from "../../each.ts";
import { oneLine, table } from "../../output.ts";
import { diffCommand } from "./commit.ts";
import { withProgress } from "../../with-progress.ts";

const caFileOption = (): Option =>
  new Option("--ca-file <path>", "certificates of authorities to trust besides the system's");

const platformOption = (): Option =>
  new Option("--platform <os/arch>", "platform of a multi-platform image");

/** `image ls`. */
function lsCommand(): Command {
  return runs(command("ls", "list images").alias("list"), async (context) => {
    const list = await (await context.vmsan()).images.list();
    // A row for each name: each can be used, and taken away.
    const rows = list.images.flatMap((image) =>
      (image.names.length === 0 ? ["-"] : image.names).map((name) => [
        oneLine(name),
        image.digest.slice(0, 19),
        image.platform,
        formatBytes(image.sizeBytes),
        image.usedBy.join(",") || "-",
      ]),
    );
    const sum = `${list.images.length} images, ${formatBytes(list.blobBytes)} of blobs, ${formatBytes(list.diskBytes)} of disks`;
    context.output.result(
      list,
      `${table([["NAME", "DIGEST", "PLATFORM", "SIZE", "USED BY"], ...rows])}\n${sum}`,
    );
  });
}

/** `image pull`. */
function pullCommand(): Command {
  const target = command("pull <image>", "fetch an image")
    .addOption(platformOption())
    .addOption(caFileOption());
  return runs<{ platform?: string; caFile?: string }>(target, (context, source: string) =>
    withProgress(
      context,
      async (work) => {
        const { platform, caFile } = context.flags;
        return await (
          await context.vmsan()
        ).images.pull(source, {
          ...work,
          ...(platform === undefined ? {} : { platform }),
          ...(caFile === undefined ? {} : { caFile }),
        });
      },
      (image) => context.output.result(image, image.digest),
    ),
  );
}

/** `image push`. */
function pushCommand(): Command {
  const target = command("push <image> [destination]", "send an image to a registry")
    .addOption(platformOption())
    .addOption(caFileOption());
  return runs<{ platform?: string; caFile?: string }>(
    target,
    (context, name: string, destination: string | undefined) =>
      withProgress(
        context,
        async (work) => {
          const { platform, caFile } = context.flags;
          return await (
            await context.vmsan()
          ).images.push(name, {
            ...work,
            ...(destination === undefined ? {} : { destination }),
            ...(platform === undefined ? {} : { platform }),
            ...(caFile === undefined ? {} : { caFile }),
          });
        },
        (report) => context.output.result(report, `${report.destination}@${report.digest}`),
      ),
  );
}

/** `image history`. */
function historyCommand(): Command {
  const target = command("history <image>", "how an image was made").option(
    "--no-trunc",
    "what made each layer in full",
  );
  return runs<{ trunc: boolean }>(target, async (context, name: string) => {
    const steps = await (await context.vmsan()).images.history(name);
    const rows = steps.map(({ created, createdBy, comment, layer }) => {
      const made = oneLine(createdBy);
      return [
        layer?.digest.slice(7, 19) ?? "-",
        created ?? "-",
        context.flags.trunc && made.length > 60 ? `${made.slice(0, 59)}…` : made,
        formatBytes(layer?.size ?? 0),
        oneLine(comment),
      ];
    });
    context.output.result(
      { steps },
      table([["LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"], ...rows]),
    );
  });
}

/** `image inspect`. */
function inspectCommand(): Command {
  return runs(
    command("inspect <image>", "everything about an image, as JSON"),
    async (context, name: string) => {
      const image = await (await context.vmsan()).images.inspect(name);
      context.output.result(image, JSON.stringify(image, null, 2));
    },
  );
}

/** `image rm`. */
function rmCommand(): Command {
  return runs(
    command("rm <image...>", "take names of images away").aliases(["remove", "delete"]),
    async (context, names: string[]) => {
      const { images } = await context.vmsan();
      return await toEach(context, names, { all: "removed", one: "name" }, (name) =>
        images.remove(name),
      );
    },
  );
}

/** `image prune`. */
function pruneCommand(): Command {
  const target = command("prune", "remove what neither a name nor a VM uses").option(
    "-a, --all",
    "every image and disk that no VM uses",
  );
  return runs<{ all?: boolean }>(target, async (context) => {
    const report = await (await context.vmsan()).images.prune({ all: context.flags.all === true });
    context.output.result(
      report,
      `${report.images.length} images, ${report.blobs} blobs and ${report.disks} disks removed, ${formatBytes(report.freedBytes)} freed`,
    );
  });
}

/** `image tag`. */
function tagCommand(): Command {
  return runs(
    command("tag <image> <name>", "give an image one more name"),
    async (context, name: string, newName: string) => {
      await (await context.vmsan()).images.tag(name, newName);
      context.output.result({ name, newName }, newName);
    },
  );
}

/** `image save`. */
function saveCommand(): Command {
  const target = command("save <image>", "write an image as an archive")
    .requiredOption("-o, --output <file>", "file to write; - for standard output")
    .addOption(
      new Option("--format <format>", "kind of archive")
        .choices(["oci-archive", "docker-archive", "rootfs"])
        .default("oci-archive"),
    );
  return runs<{ output: string; format: SaveFormat }>(target, async (context, name: string) => {
    const { output: file, format } = context.flags;
    const { images } = await context.vmsan();
    await images.save(name, file === "-" ? process.stdout : file, { format });
    if (file !== "-") context.output.result({ output: file, format, name }, file);
  });
}

/** `image load`. */
function loadCommand(): Command {
  const target = command("load", "read images from an archive").option(
    "-i, --input <file>",
    "archive to read; - for standard input",
    "-",
  );
  return runs<{ input: string }>(target, (context) =>
    withProgress(
      context,
      async (work) => {
        const { input } = context.flags;
        const { images } = await context.vmsan();
        return await images.load(input === "-" ? process.stdin : input, work);
      },
      (loaded) =>
        context.output.result(
          { images: loaded },
          loaded
            .flatMap((image) =>
              image.names.length === 0 ? [image.digest] : image.names.map(oneLine),
            )
            .join("\n"),
        ),
    ),
  );
}

interface DiskFlags {
  output: string;
  size: string;
  builder?: "direct" | "mke2fs";
  journal?: boolean;
  platform?: string;
  caFile?: string;
}

/** `image disk`. */
function diskCommand(): Command {
  const target = command("disk <image>", "write an image as an ext4 disk")
    .requiredOption("-o, --output <file>", "file to write; must not exist")
    .option("--size <size>", "size of the disk", "10gb")
    .addOption(new Option("--builder <name>", "how it is made").choices(["direct", "mke2fs"]))
    .option("--journal", "with a journal, for a disk that will be written")
    .addOption(platformOption())
    .addOption(caFileOption());
  return runs<DiskFlags>(target, (context, source: string) => {
    const { output: file, size, builder, journal, platform, caFile } = context.flags;
    return withProgress(
      context,
      async (work) =>
        await (
          await context.vmsan()
        ).images.disk(source, file, {
          ...work,
          size,
          journal: journal === true,
          ...(builder === undefined ? {} : { builder }),
          ...(platform === undefined ? {} : { platform }),
          ...(caFile === undefined ? {} : { caFile }),
        }),
      (summary) => {
        for (const warning of summary.warnings) context.output.note(`warning: ${warning}`);
        context.output.result(
          { output: file, ...summary },
          `${file}: ${summary.entries} entries, ${formatBytes(summary.dataBytes)} of data, ${formatBytes(summary.allocatedBytes)} on disk`,
        );
      },
    );
  });
}

/** The definition. */
export function imageCommand(): Command {
  const target = command("image", "pull, list, save, load and remove images");
  for (const make of [
    lsCommand,
    pullCommand,
    pushCommand,
    inspectCommand,
    historyCommand,
    diffCommand,
    tagCommand,
    rmCommand,
    pruneCommand,
    saveCommand,
    loadCommand,
    diskCommand,
  ]) {
    target.addCommand(make());
  }
  return target;
}
