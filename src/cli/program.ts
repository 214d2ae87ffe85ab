/** The command table: every command's definition, no command's work. */
import { Command, Option } from "commander";
import { packageVersion } from "../util/package.ts";
import { helpLayout } from "./command.ts";
import { completionCommand } from "./commands/completion.ts";
import { connectCommand } from "./commands/connect.ts";
import { cpCommand, downloadCommand, uploadCommand } from "./commands/copy.ts";
import { createCommand } from "./commands/create.ts";
import { daemonCommand } from "./commands/daemon.ts";
import { doctorCommand } from "./commands/doctor.ts";
import { execCommand } from "./commands/exec.ts";
import { imageCommand } from "./commands/image.ts";
import { kernelCommand } from "./commands/kernel.ts";
import {
  inspectCommand,
  pauseCommand,
  removeCommand,
  resumeCommand,
  startCommand,
  stopCommand,
} from "./commands/lifecycle.ts";
import { listCommand } from "./commands/list.ts";
import { loginCommand, logoutCommand } from "./commands/login.ts";
import { logsCommand } from "./commands/logs.ts";
import { networkCommand } from "./commands/network.ts";
import { portForwardCommand } from "./commands/port-forward.ts";
import { killCommand, psCommand, waitCommand } from "./commands/processes.ts";
import { runCommand } from "./commands/run.ts";
import { setupCommand } from "./commands/setup.ts";

const GROUPS: readonly (readonly [string, readonly (() => Command)[]])[] = [
  ["Run:", [runCommand, createCommand, execCommand, connectCommand]],
  [
    "VMs:",
    [
      listCommand,
      inspectCommand,
      startCommand,
      stopCommand,
      removeCommand,
      pauseCommand,
      resumeCommand,
      logsCommand,
      networkCommand,
      portForwardCommand,
    ],
  ],
  [
    "Inside a VM:",
    [uploadCommand, downloadCommand, cpCommand, psCommand, waitCommand, killCommand],
  ],
  ["Images:", [imageCommand, loginCommand, logoutCommand]],
  ["Host:", [setupCommand, doctorCommand, kernelCommand, daemonCommand, completionCommand]],
];

/** The whole command line, ready to parse. */
export function createProgram(): Command {
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
  for (const [group, commands] of GROUPS) {
    for (const make of commands) program.addCommand(make().helpGroup(group));
  }
  program.addHelpText("after", "\nAny command: vmsan COMMAND --help. Documentation: docs/.");
  return program;
}
