/** `vmsan build`: an image of a Dockerfile. */
import { Option } from "commander";
import type { Command } from "commander";
import type { BuildOptions } from "../../../client/builds/builds.ts";
import { hostsOf } from "../../../client/builds/hosts.ts";
import type { BuildReport } from "../../../model/api/builds.ts";
import type { ProgressEvent, ProgressSink } from "../../../model/progress.ts";
import { formatBytes, invalid } from "../../../util/units.ts";
import { collect, command, interruptSignal, runs } from "../../command.ts";
import type { Context } from "../../command.ts";
import { oneLine } from "../../output.ts";
import { addPolicyFlags, policyOptions } from "../../policy-flags.ts";
import type { PolicyFlags } from "../../policy-flags.ts";
import { progressView } from "../../progress.ts";
import { makeRoom, writeFacts } from "./build-files.ts";
import type { FactFiles } from "./build-files.ts";
import { contextsOf, labelsOf, mapOf, outputOf, secretsOf } from "./build-words.ts";
import type { Destination } from "./build-words.ts";

interface BuildFlags extends PolicyFlags, FactFiles {
  tag?: string[];
  file?: string;
  buildArg?: string[];
  label?: string[];
  target?: string;
  platform?: string;
  secret?: string[];
  addHost?: string[];
  buildContext?: string[];
  cache: boolean;
  pull?: boolean;
  progress: "auto" | "plain" | "json";
  output?: string;
  network?: "none" | "default";
  caFile?: string;
}

/** Write a result there. @returns whether standard output has been used for it */
async function writeResult(
  context: Context<BuildFlags>,
  digest: string,
  to: Destination,
  signal: AbortSignal,
): Promise<boolean> {
  const { images } = await context.vmsan();
  if ("dir" in to) {
    const onSkip = (path: string, why: string): void =>
      void process.stderr.write(`${oneLine(`left out ${path}: ${why}`)}\n`);
    await images.unpack(digest, to.dir, { signal, onSkip });
    return false;
  }
  const { dest, format } = to;
  await images.save(digest, dest === "-" ? process.stdout : dest, { format, signal });
  return dest === "-";
}

/** Progress of a build: its output line by line, or as JSON lines. */
function sinkOf(context: Context<BuildFlags>): { sink: ProgressSink; close: () => void } {
  const { flags, output } = context;
  const json = flags.progress === "json" || (output.json && flags.progress === "auto");
  if (json) {
    const sink = (event: ProgressEvent): void =>
      void process.stderr.write(`${JSON.stringify(event)}\n`);
    return { sink, close: () => undefined };
  }
  // Pulls and boots have bars on a terminal; what a build prints is to be kept.
  const view = progressView(output, false);
  return {
    sink: (event) => {
      if (event.phase !== "build" || event.done !== undefined) view.sink(event);
      else {
        view.close();
        process.stderr.write(`${oneLine(event.message ?? "")}\n`);
      }
    },
    close: () => view.close(),
  };
}

/** The options that the flags say. */
function optionsOf(flags: BuildFlags, context: string): BuildOptions {
  const { tag, file, target, platform, caFile } = flags;
  const network = flags.network === "none" ? { networkPolicy: "deny-all" } : {};
  return {
    context: context === "-" ? process.stdin : context,
    ...(file === undefined ? {} : { file: file === "-" ? process.stdin : file }),
    buildArgs: mapOf(flags.buildArg),
    labels: labelsOf(flags.label),
    addHosts: hostsOf(flags.addHost),
    contexts: contextsOf(flags.buildContext),
    secrets: secretsOf(flags.secret),
    noCache: !flags.cache,
    pull: flags.pull === true ? "always" : "missing",
    ...(tag === undefined ? {} : { tags: tag }),
    ...(target === undefined ? {} : { target }),
    ...(platform === undefined ? {} : { platform }),
    ...(caFile === undefined ? {} : { caFile }),
    ...policyOptions(flags),
    ...network,
  };
}

/** Run the build. */
async function build(context: Context<BuildFlags>, from: string): Promise<number> {
  const { flags, output } = context;
  const options = optionsOf(flags, from);
  const to = flags.output === undefined ? undefined : outputOf(flags.output);
  if (to !== undefined && "dest" in to && to.dest === "-") {
    const why = output.json
      ? "--json and the image cannot share standard output."
      : process.stdout.isTTY
        ? "A terminal is no place for an archive."
        : undefined;
    if (why !== undefined) {
      throw invalid("FLAGS", "--output", flags.output, why, "Add ,dest=FILE.");
    }
  }
  await makeRoom(flags);
  const view = sinkOf(context);
  const interrupt = interruptSignal();
  const { signal } = interrupt;
  try {
    const vmsan = await context.vmsan();
    const report: BuildReport = await vmsan.build(options, { onProgress: view.sink, signal });
    const used = to !== undefined && (await writeResult(context, report.digest, to, signal));
    await writeFacts(flags, report);
    view.close();
    if (!used) output.result(report, report.digest);
    return 0;
  } catch (error) {
    view.close();
    if (!signal.aborted) throw error;
    return 128 + interrupt.number();
  } finally {
    interrupt.dispose();
  }
}

/** `build prune`. */
function pruneCommand(): Command {
  return runs(command("prune", "remove the builder's VM with its cache"), async (context) => {
    const report = await (await context.vmsan()).builds.prune();
    const said = report.removed ? `${formatBytes(report.freedBytes)} freed` : "there is no builder";
    context.output.result(report, said);
  });
}

/** The definition. */
export function buildCommand(): Command {
  const target = command(
    "build <context>",
    "make an image of a Dockerfile: of a directory, DIR#REF of git, or - for a Dockerfile or tar on standard input",
  )
    .option("-t, --tag <name>", "name of the image; repeatable", collect)
    .option(
      "-f, --file <file>",
      "the Dockerfile, if it is not the context's own; - for standard input",
    )
    .option("--build-arg <pair>", "value of an ARG; repeatable", collect)
    .option("--label <pair>", "label of the image; repeatable", collect)
    .option("--target <stage>", "stage to stop at")
    .option("--platform <os/arch>", "platform of the image")
    .option(
      "--secret <spec>",
      "id=NAME,src=FILE|env=VARIABLE for RUN --mount=type=secret; repeatable",
      collect,
    )
    .option("--add-host <host>", "NAME:ADDRESS for commands to find; repeatable", collect)
    .option(
      "--build-context <pair>",
      "NAME=docker-image://IMAGE: what FROM NAME and --from=NAME mean; repeatable",
      collect,
    )
    .option("--no-cache", "run every step again")
    .option("--pull", "ask registries for newer base images")
    .addOption(
      new Option("--progress <kind>", "how progress is shown")
        .choices(["auto", "plain", "json"])
        .default("auto"),
    )
    .option(
      "-o, --output <spec>",
      "write the result, too: type=local,dest=DIR (its files), type=tar|oci|docker,dest=FILE",
    )
    .option("--iidfile <path>", "write the image's digest to a file")
    .option("--metadata-file <path>", "write its digests and names to a file, as JSON")
    .addOption(
      new Option("--network <kind>", "none: commands reach nothing").choices(["default", "none"]),
    )
    .option("--ca-file <path>", "certificates of authorities to trust besides the system's");
  addPolicyFlags(target);
  target.addCommand(pruneCommand());
  return runs<BuildFlags>(target, build);
}
