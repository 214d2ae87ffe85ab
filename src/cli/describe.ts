/** The command table as plain data, for completion scripts and generated documents. */
import type { Argument, Command, Option } from "commander";

/** An option of a command. */
export interface OptionInfo {
  /** As commander writes it: `-e, --env <KEY=VALUE>`. */
  flags: string;
  short?: string;
  long?: string;
  /** It is followed by a value. */
  takesValue: boolean;
  /** What the value's place is called, e.g. `KEY=VALUE`. */
  valueName: string;
  choices: readonly string[];
  description: string;
  defaultText?: string;
}

/** An argument of a command. */
export interface ArgumentInfo {
  name: string;
  required: boolean;
  variadic: boolean;
  description: string;
  choices: readonly string[];
}

/** A command with everything below it. */
export interface CommandInfo {
  name: string;
  /** Names from the program down, e.g. `["vmsan", "image", "pull"]`. */
  path: readonly string[];
  aliases: readonly string[];
  description: string;
  /** Heading that the help puts it under. */
  group: string;
  usage: string;
  arguments: ArgumentInfo[];
  options: OptionInfo[];
  commands: CommandInfo[];
}

/** An option as data. */
function describeOption(option: Option): OptionInfo {
  const takesValue = option.required || option.optional;
  const value: unknown = option.defaultValueDescription ?? option.defaultValue;
  const defaultText =
    typeof value === "string" || typeof value === "number" ? String(value) : undefined;
  return {
    flags: option.flags,
    ...(option.short === undefined ? {} : { short: option.short }),
    ...(option.long === undefined || option.long === null ? {} : { long: option.long }),
    takesValue,
    valueName: /[<[](.+?)(?:\.\.\.)?[>\]]/.exec(option.flags)?.[1] ?? "",
    choices: option.argChoices ?? [],
    description: option.description,
    ...(defaultText === undefined ? {} : { defaultText }),
  };
}

/** An argument as data. */
function describeArgument(argument: Argument): ArgumentInfo {
  return {
    name: argument.name(),
    required: argument.required,
    variadic: argument.variadic,
    description: argument.description,
    choices: argument.argChoices ?? [],
  };
}

/** Everything that the help of a program shows, without what is hidden in it. */
export function describeCommand(command: Command, above: readonly string[] = []): CommandInfo {
  const help = command.createHelp();
  const path = [...above, command.name()];
  return {
    name: command.name(),
    path,
    aliases: command.aliases(),
    description: command.description(),
    group: command.helpGroup() ?? "",
    usage: command.usage(),
    arguments: command.registeredArguments.map(describeArgument),
    options: help.visibleOptions(command).map(describeOption),
    commands: help
      .visibleCommands(command)
      .filter((child) => child.name() !== "help")
      .map((child) => describeCommand(child, path)),
  };
}
