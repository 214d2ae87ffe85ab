/** Documents made from the command table: a reference in Markdown and a manual page. */
import type { CommandInfo, OptionInfo } from "../../src/cli/describe.ts";
import { EXAMPLES } from "../../src/cli/words/examples.ts";

/** The options that every command has; described once. */
const common = new Set(["--json", "--verbose", "--timing", "--trace", "--help", "--version"]);

/** Commands that do something themselves, depth first. */
function withCommands(command: CommandInfo): CommandInfo[] {
  return command.commands.flatMap((child) => [child, ...withCommands(child)]);
}

/** `vmsan image pull [options] <ref>`. */
function synopsis(command: CommandInfo): string {
  return [...command.path, command.usage].join(" ").trim();
}

/** What is said of an option: description, choices, default. */
function remarks(option: OptionInfo): string {
  const parts = [option.description];
  if (option.choices.length > 0) parts.push(`One of ${option.choices.join(", ")}.`);
  if (option.defaultText !== undefined) parts.push(`Default: ${option.defaultText}.`);
  return parts
    .filter((part) => part !== "")
    .join("; ")
    .replaceAll(".;", ".");
}

/** Text that may stand in a Markdown table's cell. */
function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("<", "&lt;").replaceAll("\n", " ");
}

/** A Markdown section about one command. */
function markdownSection(command: CommandInfo): string {
  const lines = [`## ${command.path.join(" ")}`, "", "```", synopsis(command), "```", ""];
  if (command.description !== "") lines.push(command.description, "");
  if (command.aliases.length > 0) lines.push(`Also: ${command.aliases.join(", ")}.`, "");
  const described = command.arguments.filter(({ description }) => description !== "");
  if (described.length > 0) {
    lines.push("| Argument | |", "|---|---|");
    for (const { name, description } of described)
      lines.push(`| \`${name}\` | ${cell(description)} |`);
    lines.push("");
  }
  const own = command.options.filter(({ long }) => long === undefined || !common.has(long));
  if (own.length > 0) {
    lines.push("| Option | |", "|---|---|");
    for (const option of own)
      lines.push(`| \`${option.flags.replaceAll("|", "\\|")}\` | ${cell(remarks(option))} |`);
    lines.push("");
  }
  const examples = EXAMPLES[command.path.slice(1).join(" ")] ?? [];
  if (examples.length > 0) {
    lines.push("```sh", ...examples.map((line) => `vmsan ${line}`), "```", "");
  }
  return lines.join("\n");
}

/** docs/cli.md. */
export function markdownReference(program: CommandInfo): string {
  const all = withCommands(program);
  const head = [
    `# ${program.name}: the command line`,
    "",
    "Generated from the command table by `npm run docs`; do not edit.",
    "",
    "Every command takes `--json` (one JSON object on standard output), `--verbose`, `--help`, and `--timing` and",
    "`--trace FILE`, which tell where its time went (docs/performance.md).",
    "Exit status: the guest command's own for `run` and `exec` (124 timed out, 130 interrupted, 128+N",
    "signal N); else 0, 1 for a failure, 2 for wrong usage.",
    "",
    "| Command | |",
    "|---|---|",
    ...all.map(({ path, description }) => {
      const anchor = path.join("-").toLowerCase();
      return `| [${path.slice(1).join(" ")}](#${anchor}) | ${cell(description)} |`;
    }),
    "",
  ];
  return `${[head.join("\n"), ...all.map(markdownSection)].join("\n").trimEnd()}\n`;
}

/** Text for roff: backslashes, leading dots and hyphens as they are meant. */
function roff(text: string): string {
  return text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replaceAll(/^([.'])/gm, "\\&$1");
}

/** Roff lines of a list of options. */
function roffOptions(options: readonly OptionInfo[]): string[] {
  return options.flatMap((option) => [
    ".TP",
    `.B ${roff(option.flags)}`,
    roff(remarks(option)) || "\\&",
  ]);
}

/** The manual page, section 1 (man(7)). */
export function manualPage(program: CommandInfo, version: string): string {
  const lines = [
    `.\\" Generated from the command table by \`npm run docs\`; do not edit.`,
    `.TH ${program.name.toUpperCase()} 1 "" "${program.name} ${version}" "User Commands"`,
    ".SH NAME",
    `${program.name} \\- run any OCI image as a microVM`,
    ".SH SYNOPSIS",
    `.B ${program.name}`,
    "[\\fIOPTION\\fR]... \\fICOMMAND\\fR [\\fIARGUMENT\\fR]...",
    ".SH DESCRIPTION",
    roff(program.description),
    ".SH OPTIONS",
    ...roffOptions(program.options),
    ".SH COMMANDS",
  ];
  for (const command of withCommands(program)) {
    lines.push(`.SS "${roff(synopsis(command))}"`, roff(command.description) || "\\&");
    if (command.aliases.length > 0) lines.push(`Also: ${roff(command.aliases.join(", "))}.`);
    lines.push(
      ...roffOptions(command.options.filter(({ long }) => long === undefined || !common.has(long))),
    );
  }
  lines.push(
    ".SH ENVIRONMENT",
    ".TP",
    ".B VMSAN_DIR",
    "Directory of images, VMs and the daemon's socket; ~/.vmsan by default.",
    ".SH EXIT STATUS",
    "The guest command's own for run and exec: 124 when it timed out, 130 when it was interrupted,",
    "128+N for signal N. Otherwise 0, 1 for a failure, 2 for wrong usage.",
    ".SH EXAMPLES",
    ".EX",
    "vmsan run base \\-\\- uname \\-a",
    "vmsan create \\-\\-name web \\-\\-from\\-image node:22 \\-\\-publish\\-port 8080",
    "vmsan exec web node \\-\\-version",
    ".EE",
  );
  return `${lines.join("\n")}\n`;
}
