/**
 * Completion scripts for bash, zsh and fish, made from the command table. They start no process
 * when a key is pressed: VMs are offered from the directory names in VMSAN_DIR.
 */
import type { CommandInfo, OptionInfo } from "./describe.ts";

/** Shells that there is a script for. */
export const shells = ["bash", "zsh", "fish"] as const;
/** One of {@link shells}. */
export type Shell = (typeof shells)[number];

/** All commands below (and with) this one, depth first. */
function flatten(command: CommandInfo): CommandInfo[] {
  return [command, ...command.commands.flatMap(flatten)];
}

/** Names a command can be called by. */
const names = (command: CommandInfo): string[] => [command.name, ...command.aliases];

/** What to offer for a command's first argument. */
function argumentKind(command: CommandInfo): "vm" | "vms" | "file" | string[] {
  const first = command.arguments[0];
  if (first === undefined) return [];
  if (first.choices.length > 0) return [...first.choices];
  if (!/^(id|vm)s?$/i.test(first.name)) return "file";
  return first.variadic ? "vms" : "vm";
}

/** A single-quoted word of a POSIX shell. */
function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Long and short names of options. */
function switches(options: readonly OptionInfo[]): string[] {
  return options.flatMap(({ long, short }) => [long, short]).filter((name) => name !== undefined);
}

/** `a|b` for a case pattern of options that take a value; one that matches nothing if none do. */
function valueSwitches(program: CommandInfo): string {
  const all = flatten(program).flatMap(({ options }) => options.filter((one) => one.takesValue));
  return [...new Set(switches(all))].sort().join("|") || "''";
}

/** Lines that set `words` (what may come) and `kind` by the command in `path`. */
function caseTable(program: CommandInfo): string {
  return flatten(program)
    .map((command) => {
      const kind = argumentKind(command);
      const words = [...command.commands.flatMap(names), ...(Array.isArray(kind) ? kind : [])];
      const patterns = aliasPaths(command, program).map(quote).join("|");
      return `    ${patterns}) words=${quote(words.join(" "))} flags=${quote(switches(command.options).join(" "))} kind=${Array.isArray(kind) ? "''" : kind} ;;`;
    })
    .join("\n");
}

/** Every way to spell a command's path, aliases included. */
function aliasPaths(command: CommandInfo, program: CommandInfo): string[] {
  let paths = [""];
  let at: CommandInfo | undefined = program;
  for (const name of command.path.slice(1)) {
    at = at?.commands.find((child) => child.name === name);
    const spelled: string[] = at === undefined ? [name] : names(at);
    paths = paths.flatMap((path) =>
      spelled.map((word) => (path === "" ? word : `${path} ${word}`)),
    );
  }
  return paths;
}

/** Lines that set what an option's value may be, by the option before the cursor. */
function choiceTable(program: CommandInfo): string {
  const lines = new Map<string, string>();
  for (const { options } of flatten(program)) {
    for (const option of options) {
      if (option.choices.length === 0) continue;
      lines.set(switches([option]).join("|"), option.choices.join(" "));
    }
  }
  return [...lines]
    .map(([option, words]) => `    ${option}) words=${quote(words)} kind='' ;;`)
    .join("\n");
}

/** Bash: walk the words to the command that is being completed. */
function walk(program: CommandInfo): string {
  const known = flatten(program).filter((command) => command.path.length > 1);
  const paths = known
    .flatMap((command) => aliasPaths(command, program))
    .map(quote)
    .join("|");
  return `  local path='' word previous='' words='' flags='' kind='' given=0 i
  for ((i = 1; i < current; i++)); do
    word=\${line[i]}
    case $previous in ${valueSwitches(program)}) previous=''; continue ;; esac
    previous=$word
    case $word in
      --) return 0 ;;
      -*) continue ;;
    esac
    case "\${path:+$path }$word" in
      ${paths || "''"}) path="\${path:+$path }$word" ;;
      *) given=$((given + 1)) ;;
    esac
  done
  case $path in
${caseTable(program)}
  esac
  case $previous in
${choiceTable(program)}
    ${valueSwitches(program)}) words='' flags='' kind=file ;;
    *) if [ "$given" -gt 0 ] && [ "$kind" = vm ]; then kind=file; fi ;;
  esac`;
}

/** The completion script for bash. */
function bash(program: CommandInfo): string {
  return `# bash completion for ${program.name}; generated, see \`${program.name} completion --help\`.
_${program.name}() {
  local line=("\${COMP_WORDS[@]}") current=$COMP_CWORD cur=\${COMP_WORDS[COMP_CWORD]}
  COMPREPLY=()
${walk(program)}
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$cur"))
    return 0
  fi
  if [[ $kind == vm* ]]; then
    local dir
    for dir in "\${VMSAN_DIR:-$HOME/.vmsan}"/vms/vm-*/; do
      [[ -d $dir ]] && dir=\${dir%/} && words+=" \${dir##*/}"
    done
  fi
  if [[ $kind == file ]]; then
    COMPREPLY=($(compgen -f -- "$cur"))
  else
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
  fi
}
complete -o filenames -o bashdefault -F _${program.name} ${program.name}
`;
}

/** The completion script for zsh: bash's, by zsh's own emulation of it. */
function zsh(program: CommandInfo): string {
  return `#compdef ${program.name}
autoload -U +X bashcompinit && bashcompinit
${bash(program)}
[ "\${funcstack[1]}" = "_${program.name}" ] && _bash_complete -o bashdefault -o filenames -F _${program.name}
true
`;
}

/** The completion script for fish. */
function fish(program: CommandInfo): string {
  const lines = [
    `# fish completion for ${program.name}; generated, see \`${program.name} completion --help\`.`,
    `complete -c ${program.name} -f`,
    `function __${program.name}_vms`,
    "  set -q VMSAN_DIR; and set -l home $VMSAN_DIR; or set -l home ~/.vmsan",
    "  for dir in $home/vms/vm-*/",
    "    string replace -r '.*/([^/]+)/$' '$1' -- $dir",
    "  end",
    "end",
    `function __${program.name}_at`,
    "  # The words so far, without options, are exactly these.",
    "  set -l words (commandline -opc)[2..-1]",
    "  set words (string match -v -- '-*' $words)",
    '  test "$words" = "$argv"',
    "end",
  ];
  for (const command of flatten(program)) {
    for (const path of aliasPaths(command, program)) {
      const at = `-n ${quote(`__${program.name}_at ${path}`)}`;
      for (const child of command.commands) {
        for (const name of names(child)) {
          lines.push(`complete -c ${program.name} ${at} -a ${name} -d ${quote(child.description)}`);
        }
      }
      const kind = argumentKind(command);
      if (kind === "vm" || kind === "vms")
        lines.push(`complete -c ${program.name} ${at} -a '(__${program.name}_vms)'`);
      else if (kind === "file") lines.push(`complete -c ${program.name} ${at} -F`);
      else if (kind.length > 0)
        lines.push(`complete -c ${program.name} ${at} -a ${quote(kind.join(" "))}`);
    }
    const seen = command.path.slice(1);
    const below =
      seen.length === 0
        ? ""
        : ` -n ${quote(`__fish_seen_subcommand_from ${names(command).join(" ")}`)}`;
    for (const option of command.options) {
      lines.push(`complete -c ${program.name}${below} ${fishOption(option)}`);
    }
  }
  return `${lines.join("\n")}\n`;
}

/** An option as arguments of fish's \`complete\`. */
function fishOption(option: OptionInfo): string {
  return [
    ...(option.short === undefined ? [] : ["-s", option.short.slice(1)]),
    ...(option.long === undefined ? [] : ["-l", option.long.slice(2)]),
    ...(option.takesValue ? ["-r"] : []),
    ...(option.choices.length === 0 ? [] : ["-a", quote(option.choices.join(" "))]),
    "-d",
    quote(option.description),
  ].join(" ");
}

/** The completion script of a program for a shell. */
export function completionScript(program: CommandInfo, shell: Shell): string {
  return { bash, zsh, fish }[shell](program);
}
