/** The command table: where every command's definition is. */
import { Command, Option } from "commander";
import { packageVersion } from "../util/package.ts";
import { helpLayout } from "./command.ts";

/** A command's definition, loaded only where it is wanted: a file of its own each. */
interface Entry {
  /** Its name and then its aliases, as the definition has them. */
  names: readonly string[];
  load: () => Promise<() => Command>;
}

const GROUPS: readonly (readonly [string, readonly Entry[]])[] = [
  [
    "Run:",
    [
      { names: ["run"], load: async () => (await import("./commands/run.ts")).runCommand },
      { names: ["create"], load: async () => (await import("./commands/create.ts")).createCommand },
      { names: ["exec"], load: async () => (await import("./commands/exec.ts")).execCommand },
      {
        names: ["connect"],
        load: async () => (await import("./commands/connect.ts")).connectCommand,
      },
    ],
  ],
  [
    "VMs:",
    [
      {
        names: ["list", "ls"],
        load: async () => (await import("./commands/list.ts")).listCommand,
      },
      {
        names: ["inspect"],
        load: async () => (await import("./commands/lifecycle.ts")).inspectCommand,
      },
      {
        names: ["start"],
        load: async () => (await import("./commands/lifecycle.ts")).startCommand,
      },
      {
        names: ["stop"],
        load: async () => (await import("./commands/lifecycle.ts")).stopCommand,
      },
      {
        names: ["remove", "rm"],
        load: async () => (await import("./commands/lifecycle.ts")).removeCommand,
      },
      {
        names: ["pause"],
        load: async () => (await import("./commands/lifecycle.ts")).pauseCommand,
      },
      {
        names: ["resume"],
        load: async () => (await import("./commands/lifecycle.ts")).resumeCommand,
      },
      {
        names: ["logs"],
        load: async () => (await import("./commands/logs.ts")).logsCommand,
      },
      {
        names: ["network"],
        load: async () => (await import("./commands/network.ts")).networkCommand,
      },
      {
        names: ["port-forward"],
        load: async () => (await import("./commands/port-forward.ts")).portForwardCommand,
      },
    ],
  ],
  [
    "Inside a VM:",
    [
      {
        names: ["upload"],
        load: async () => (await import("./commands/copy.ts")).uploadCommand,
      },
      {
        names: ["download"],
        load: async () => (await import("./commands/copy.ts")).downloadCommand,
      },
      {
        names: ["cp"],
        load: async () => (await import("./commands/copy.ts")).cpCommand,
      },
      {
        names: ["ps"],
        load: async () => (await import("./commands/processes.ts")).psCommand,
      },
      {
        names: ["wait"],
        load: async () => (await import("./commands/processes.ts")).waitCommand,
      },
      {
        names: ["kill"],
        load: async () => (await import("./commands/processes.ts")).killCommand,
      },
    ],
  ],
  [
    "Images:",
    [
      {
        names: ["image"],
        load: async () => (await import("./commands/image.ts")).imageCommand,
      },
      {
        names: ["login"],
        load: async () => (await import("./commands/login.ts")).loginCommand,
      },
      {
        names: ["logout"],
        load: async () => (await import("./commands/login.ts")).logoutCommand,
      },
    ],
  ],
  [
    "Host:",
    [
      {
        names: ["setup"],
        load: async () => (await import("./commands/setup.ts")).setupCommand,
      },
      {
        names: ["doctor"],
        load: async () => (await import("./commands/doctor.ts")).doctorCommand,
      },
      {
        names: ["kernel"],
        load: async () => (await import("./commands/kernel.ts")).kernelCommand,
      },
      {
        names: ["daemon"],
        load: async () => (await import("./commands/daemon.ts")).daemonCommand,
      },
      {
        names: ["completion"],
        load: async () => (await import("./commands/completion.ts")).completionCommand,
      },
    ],
  ],
];

/** The definitions that these arguments need: one, or all for help and for names not known. */
function entriesFor(args: readonly string[]): readonly Entry[] {
  const all = GROUPS.flatMap(([, entries]) => entries);
  const first = args.find((arg) => arg !== "--json" && arg !== "--verbose");
  if (first === "--version") return [];
  const named = all.find(({ names }) => first !== undefined && names.includes(first));
  return named === undefined ? all : [named];
}

/**
 * The command line, ready to parse.
 * @param args what will be parsed: if it names a command, only that one's definition is loaded,
 *   because loading all takes longer than most commands do
 */
export async function createProgram(args: readonly string[] = []): Promise<Command> {
  const wanted = entriesFor(args);
  const program = new Command("vmsan")
    .description("Any OCI image as a hardware-isolated microVM.")
    .version(packageVersion(), "--version", "print the version")
    .helpOption("-h, --help", "print help")
    .addHelpCommand(
      new Command("help")
        .argument("[command]")
        .description("print help for a command")
        .helpOption(false)
        .helpGroup("Host:"),
    )
    .configureHelp(helpLayout)
    .addOption(new Option("--json", "one JSON object on standard output"))
    .addOption(new Option("--verbose", "say more on standard error"))
    .enablePositionalOptions()
    .showSuggestionAfterError(true);
  for (const [group, entries] of GROUPS) {
    for (const entry of entries) {
      if (!wanted.includes(entry)) continue;
      const make = await entry.load();
      program.addCommand(make().helpGroup(group));
    }
  }
  program.addHelpText("after", "\nAny command: vmsan COMMAND --help. Documentation: docs/.");
  return program;
}
