/** `vmsan build`: an image of a Dockerfile. */
import { InvalidArgumentError, Option } from "commander";
import type { Command } from "commander";
import type { BuildOptions } from "../../../client/builds/builds.ts";
import type { BuildReport, SaveFormat } from "../../../model/api.ts";
import type { ProgressEvent, ProgressSink } from "../../../model/progress.ts";
import { formatBytes } from "../../../util/units.ts";
import { collect, command, interruptSignal, runs } from "../../command.ts";
import type { Context } from "../../command.ts";
import { oneLine } from "../../output.ts";
import { addPolicyFlags, policyOptions } from "../../policy-flags.ts";
import type { PolicyFlags } from "../../policy-flags.ts";
import { progressView } from "../../progress.ts";

interface BuildFlags extends PolicyFlags {
  tag?: string[];
  file?: string;
  buildArg?: string[];
  label?: string[];
  target?: string;
  platform?: string;
  secret?: string[];
  cache: boolean;
  pull?: boolean;
  progress: "auto" | "plain" | "json";
  output?: string;
  network?: "none" | "default";
  caFile?: string;
}

/** `KEY=VALUE` words as a map; a name alone takes the value from the environment, as in Docker. */
function mapOf(words: readonly string[] = []): Record<string, string> {
  return Object.fromEntries(
    words.flatMap((word) => {
      const equals = word.indexOf("=");
      if (equals > 0) return [[word.slice(0, equals), word.slice(equals + 1)]];
      const value = process.env[word];
      return value === undefined ? [] : [[word, value]];
    }),
  );
}

/** A secret's content from a variable; undefined when there is none of that name. */
function variableOf(name: string | undefined): Buffer | undefined {
  const value = name === undefined ? undefined : process.env[name];
  return value === undefined ? undefined : Buffer.from(value);
}

/** `id=NAME,src=FILE` and `id=NAME,env=VARIABLE` words as a map; without either, the variable has the secret's name. */
function secretsOf(words: readonly string[] = []): Record<string, string | Buffer> {
  return Object.fromEntries(
    words.map((word) => {
      const fields = new Map(
        word.split(",").map((field): [string, string] => {
          const [key = "", ...value] = field.split("=");
          return [key, value.join("=")];
        }),
      );
      const [id = "", path] = [fields.get("id"), fields.get("src") ?? fields.get("source")];
      const given = path ?? variableOf(fields.get("env") ?? id);
      if (id !== "" && given !== undefined && given !== "") return [id, given];
      throw new InvalidArgumentError(
        `--secret takes id=NAME,src=FILE or id=NAME,env=VARIABLE (of one that is set), not ${word}`,
      );
    }),
  );
}

/** Kinds of results, by the word for them. */
const FORMATS: Record<string, SaveFormat | undefined> = {
  oci: "oci-archive",
  docker: "docker-archive",
  tar: "rootfs",
};

/** Where a result goes besides the store: an archive (`-`: standard output), or files in a directory. */
type Destination = { dest: string; format: SaveFormat } | { dir: string };

/** `type=oci|docker|tar[,dest=FILE]`, `type=local,dest=DIR`, and Docker's short forms `DIR` and `-`. */
function outputOf(text: string): Destination {
  if (text === "-") return { dest: "-", format: "rootfs" };
  if (!text.includes("=")) return { dir: text };
  const match = /^type=(oci|docker|tar|local)(?:,dest=(.+))?$/s.exec(text);
  const [, type = "", dest] = match ?? [];
  const format = FORMATS[type];
  if (format !== undefined) return { dest: dest ?? "-", format };
  if (type === "local" && dest !== undefined && dest !== "-") return { dir: dest };
  throw new InvalidArgumentError(
    "--output takes type=local,dest=DIR, or type=tar, type=oci or type=docker with or without ,dest=FILE",
  );
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
    labels: mapOf(flags.label),
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
    if (output.json)
      throw new InvalidArgumentError("--json and the image cannot share standard output");
    if (process.stdout.isTTY)
      throw new InvalidArgumentError("a terminal is no place for an archive: add ,dest=FILE");
  }
  const view = sinkOf(context);
  const interrupt = interruptSignal();
  const { signal } = interrupt;
  try {
    const vmsan = await context.vmsan();
    const report: BuildReport = await vmsan.build(options, { onProgress: view.sink, signal });
    const used = to !== undefined && (await writeResult(context, report.digest, to, signal));
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
    .addOption(
      new Option("--network <kind>", "none: commands reach nothing").choices(["default", "none"]),
    )
    .option("--ca-file <path>", "certificates of authorities to trust besides the system's");
  addPolicyFlags(target);
  target.addCommand(pruneCommand());
  return runs<BuildFlags>(target, build);
}
