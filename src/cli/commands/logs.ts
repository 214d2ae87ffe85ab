/** `vmsan logs`: the guest's console, or the output of a detached command. */
import type { Command } from "commander";
import { command, runs } from "../command.ts";

interface Flags {
  follow?: boolean;
  tail?: string;
  since?: string;
}

/** The definition. */
export function logsCommand(): Command {
  const target = command(
    "logs <vm> [command]",
    "the VM's console, or the output of a detached command in it",
  )
    .option("-f, --follow", "go on as more comes")
    .option("-n, --tail <lines>", "only the last lines")
    .option(
      "--since <time>",
      "a command's output only if it was started since then: 10m, 2h or a date",
    );
  return runs<Flags>(target, async ({ flags, output, vmsan }, ref: string, id?: string) => {
    const vm = await (await vmsan()).get(ref);
    const { showConsole, showCommandOutput } = await import("../session/logs.ts");
    const options = {
      follow: flags.follow === true,
      ...(flags.tail === undefined ? {} : { tail: flags.tail }),
      ...(flags.since === undefined ? {} : { since: flags.since }),
    };
    if (id === undefined && flags.since !== undefined) {
      const { invalid } = await import("../../util/units.ts");
      const why = "It is about a detached command; lines of a console have no time.";
      const fix = `Use --tail LINES, or name the command: \`vmsan ps ${ref}\` shows them.`;
      throw invalid("FLAGS", "--since", flags.since, why, fix);
    }
    return id === undefined
      ? await showConsole(vm, options, output)
      : await showCommandOutput(vm, id, options, output);
  });
}
