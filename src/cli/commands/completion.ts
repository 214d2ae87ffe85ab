/** `vmsan completion`: scripts for the completion of shells. */
import { Argument } from "commander";
import type { Command } from "commander";
import { command, runs } from "../command.ts";

/** The definition. */
export function completionCommand(): Command {
  const target = command("completion", "print a completion script").addArgument(
    new Argument("<shell>", "which shell").choices(["bash", "zsh", "fish"]),
  );
  target.addHelpText(
    "after",
    `
bash:  vmsan completion bash >~/.local/share/bash-completion/completions/vmsan
zsh:   vmsan completion zsh >"\${fpath[1]}/_vmsan"
fish:  vmsan completion fish >~/.config/fish/completions/vmsan.fish`,
  );
  return runs(target, async (context, shell: "bash" | "zsh" | "fish") => {
    const { completionScript } = await import("../completion.ts");
    const { describeCommand } = await import("../describe.ts");
    // The program that this command was called in; for this command it is loaded whole.
    const program = target.parent ?? target;
    const script = completionScript(describeCommand(program), shell);
    context.output.result({ shell, script }, script.trimEnd());
  });
}
