/** The command table: where every command's definition is. */
import { Command, Option } from "commander";
import { packageVersion } from "../util/package.ts";
import { CLUSTER_VALUES, addClusterFlags } from "./cluster-flags.ts";
import { helpLayout } from "./command.ts";

/**
 * By the help's headings: each command's name and aliases, as its definition has them, and where
 * that definition is. It is loaded only where it is wanted.
 */
const GROUPS: Record<string, Record<string, () => Promise<() => Command>>> = {
  "Run:": {
    run: async () => (await import("./commands/run.ts")).runCommand,
    create: async () => (await import("./commands/create.ts")).createCommand,
    fork: async () => (await import("./commands/snapshots/snapshot.ts")).forkCommand,
    exec: async () => (await import("./commands/exec.ts")).execCommand,
    connect: async () => (await import("./commands/connect.ts")).connectCommand,
    ssh: async () => (await import("./commands/ssh.ts")).sshCommand,
    "ssh-config": async () => (await import("./commands/ssh.ts")).sshConfigCommand,
  },
  "VMs:": {
    "list ls": async () => (await import("./commands/list.ts")).listCommand,
    inspect: async () => (await import("./commands/lifecycle.ts")).inspectCommand,
    start: async () => (await import("./commands/lifecycle.ts")).startCommand,
    stop: async () => (await import("./commands/lifecycle.ts")).stopCommand,
    "remove rm delete": async () => (await import("./commands/lifecycle.ts")).removeCommand,
    update: async () => (await import("./commands/lifecycle.ts")).updateCommand,
    pause: async () => (await import("./commands/lifecycle.ts")).pauseCommand,
    suspend: async () => (await import("./commands/lifecycle.ts")).suspendCommand,
    resume: async () => (await import("./commands/lifecycle.ts")).resumeCommand,
    logs: async () => (await import("./commands/logs.ts")).logsCommand,
    stats: async () => (await import("./commands/watch/stats.ts")).statsCommand,
    events: async () => (await import("./commands/watch/events.ts")).eventsCommand,
    network: async () => (await import("./commands/networks/network.ts")).networkCommand,
    "port-forward": async () => (await import("./commands/port-forward.ts")).portForwardCommand,
  },
  "Inside a VM:": {
    upload: async () => (await import("./commands/copy.ts")).uploadCommand,
    download: async () => (await import("./commands/copy.ts")).downloadCommand,
    cp: async () => (await import("./commands/copy.ts")).cpCommand,
    ps: async () => (await import("./commands/processes.ts")).psCommand,
    wait: async () => (await import("./commands/processes.ts")).waitCommand,
    kill: async () => (await import("./commands/processes.ts")).killCommand,
  },
  "Snapshots:": {
    snapshot: async () => (await import("./commands/snapshots/snapshot.ts")).snapshotCommand,
    restore: async () => (await import("./commands/snapshots/snapshot.ts")).restoreCommand,
  },
  "Volumes:": {
    volume: async () => (await import("./commands/volumes/volume.ts")).volumeCommand,
  },
  "Images:": {
    image: async () => (await import("./commands/images/image.ts")).imageCommand,
    build: async () => (await import("./commands/images/build.ts")).buildCommand,
    commit: async () => (await import("./commands/images/commit.ts")).commitCommand,
    login: async () => (await import("./commands/images/login.ts")).loginCommand,
    logout: async () => (await import("./commands/images/login.ts")).logoutCommand,
  },
  "Gateway:": {
    ui: async () => (await import("./commands/ui.ts")).uiCommand,
    "docker-env": async () => (await import("./commands/docker-env.ts")).dockerEnvCommand,
    serve: async () => (await import("./commands/serve.ts")).serveCommand,
    key: async () => (await import("./commands/key.ts")).keyCommand,
    mcp: async () => (await import("./commands/mcp/mcp.ts")).mcpCommand,
  },
  "Cluster:": {
    node: async () => (await import("./commands/cluster/node.ts")).nodeCommand,
  },
  "Host:": {
    setup: async () => (await import("./commands/setup.ts")).setupCommand,
    doctor: async () => (await import("./commands/doctor.ts")).doctorCommand,
    kernel: async () => (await import("./commands/kernel.ts")).kernelCommand,
    daemon: async () => (await import("./commands/daemon.ts")).daemonCommand,
    completion: async () => (await import("./commands/completion.ts")).completionCommand,
  },
};

/** The first word that is no flag before the command. */
function firstWord(args: readonly string[]): string | undefined {
  for (let at = 0; at < args.length; at += 1) {
    const word = args[at] ?? "";
    if (CLUSTER_VALUES.includes(word)) at += 1;
    else if (!["--json", "--verbose", "--cluster"].includes(word) && !isClusterValue(word))
      return word;
  }
  return undefined;
}

/** Whether a word is one of the cluster's flags with its value: `--context=a`. */
function isClusterValue(word: string): boolean {
  return CLUSTER_VALUES.some((flag) => word.startsWith(`${flag}=`));
}

/**
 * The commands whose definitions these arguments need: one, or all for help, for unknown names,
 * and for the completion of all commands.
 */
function wantedBy(args: readonly string[]): (names: string) => boolean {
  const first = firstWord(args);
  if (first === "--version") return () => false;
  const isNamed = (names: string): boolean =>
    first !== undefined && names.split(" ").includes(first);
  if (first === "completion") return () => true;
  const known = Object.values(GROUPS).some((commands) => Object.keys(commands).some(isNamed));
  return known ? isNamed : () => true;
}

/**
 * The command line, ready to parse.
 * @param args what will be parsed: if it names a command, only that one's definition is loaded,
 *   because loading all takes longer than most commands do
 */
export async function createProgram(args: readonly string[] = []): Promise<Command> {
  const wanted = wantedBy(args);
  const program = new Command("vmsan")
    .description("Any OCI image as a hardware-isolated microVM.")
    .version(packageVersion(), "--version", "print the version")
    .helpOption("-h, --help", "print help")
    .addHelpCommand(
      new Command("help")
        .argument("[command...]")
        .description("print help for a command")
        .helpOption(false)
        .helpGroup("Host:"),
    )
    .configureHelp(helpLayout)
    .addOption(new Option("--json", "one JSON object on standard output"))
    .addOption(new Option("--verbose", "say more on standard error"))
    .enablePositionalOptions()
    .showSuggestionAfterError(true);
  addClusterFlags(program);
  for (const [group, commands] of Object.entries(GROUPS)) {
    for (const [names, load] of Object.entries(commands)) {
      if (!wanted(names)) continue;
      const make = await load();
      program.addCommand(make().helpGroup(group));
    }
  }
  if (args[0] === "help" || args.includes("--help") || args.includes("-h")) {
    (await import("./words/examples.ts")).addExamples(program);
  }
  program.addHelpText("after", "\nAny command: vmsan COMMAND --help. Documentation: docs/.");
  return program;
}
