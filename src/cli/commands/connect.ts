/** `vmsan connect`: a shell in a VM that outlives the connection. */
import type { Command } from "commander";
import { command, runs } from "../command.ts";

interface Flags {
  session?: string;
  user?: string;
}

/** The definition. */
export function connectCommand(): Command {
  const target = command("connect <vm>", "open a shell, or return to one; leave with ctrl-p ctrl-q")
    .option("-s, --session <name>", "name of the shell session (default: main)")
    .option("-u, --user <user>", "login as this user");
  return runs<Flags>(target, async ({ flags, vmsan }, ref: string) => {
    const vm = await (await vmsan()).get(ref);
    const { connectShell } = await import("../session/shell.ts");
    return await connectShell(vm, flags);
  });
}
