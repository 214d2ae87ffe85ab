/** `vmsan ssh` and `vmsan ssh-config`: OpenSSH's client and a VM, over the agent's channel. */
import type { Command } from "commander";
import { collect, command, runs } from "../command.ts";

interface Flags {
  user?: string;
  tty?: boolean;
  disableTty?: boolean;
  forwardAgent?: boolean;
  local?: string[];
  remote?: string[];
  dynamic?: string[];
  forwardOnly?: boolean;
  option?: string[];
  stdio?: boolean;
  verbose?: boolean;
}

/** Flags of ours as words for ssh. */
function wordsFor(flags: Flags): string[] {
  const each = (letter: string, values: readonly string[] = []): string[] =>
    values.flatMap((value) => [letter, value]);
  return [
    ...(flags.tty === true ? ["-t"] : []),
    ...(flags.disableTty === true ? ["-T"] : []),
    ...(flags.forwardAgent === true ? ["-A"] : []),
    ...(flags.forwardOnly === true ? ["-N"] : []),
    ...(flags.verbose === true ? ["-v"] : []),
    ...each("-L", flags.local),
    ...each("-R", flags.remote),
    ...each("-D", flags.dynamic),
    ...each("-o", flags.option),
  ];
}

/** The definition of `vmsan ssh`. */
export function sshCommand(): Command {
  const target = command("ssh <vm> [command...]", "OpenSSH's client in a VM; [USER@]VM")
    .option("-u, --user <user>", "name or uid; else the VM's default user")
    .option("-t, --tty", "a terminal also for a command")
    .option("-T, --disable-tty", "no terminal")
    .option("-A, --forward-agent", "let the VM use this side's ssh agent")
    .option("-L, --local <spec>", "[ADDR:]PORT:HOST:PORT: a port here reaches one there", collect)
    .option("-R, --remote <spec>", "[ADDR:]PORT:HOST:PORT: the other way round", collect)
    .option("-D, --dynamic <spec>", "[ADDR:]PORT: a SOCKS proxy here", collect)
    .option("-N, --forward-only", "forward only")
    .option("-o, --option <name=value>", "any option of ssh_config(5)", collect)
    .option("--stdio", "be the connection: for ssh's ProxyCommand")
    .optionsBehind();
  return runs<Flags>(target, async ({ flags, vmsan }, ref: string, words: string[]) => {
    const { pipeSsh, runSsh } = await import("../session/ssh.ts");
    const client = await vmsan();
    if (flags.stdio === true) return await pipeSsh(client, await client.get(ref));
    const at = ref.lastIndexOf("@");
    const user = flags.user ?? (at > 0 ? ref.slice(0, at) : undefined);
    const vm = await client.get(ref.slice(at + 1));
    return await runSsh(client, vm, user, wordsFor(flags), words);
  });
}

/** The definition of `vmsan ssh-config`. */
export function sshConfigCommand(): Command {
  const target = command(
    "ssh-config [vm...]",
    "print what OpenSSH's configuration needs to reach VMs (all of them)",
  );
  return runs(target, async ({ output, vmsan }, refs: string[]) => {
    const { settingFor } = await import("../session/ssh.ts");
    const { hostBlock, hostName, sshOptions } = await import("../../client/ssh/config.ts");
    const client = await vmsan();
    const ids = refs.length > 0 ? refs : (await client.survey()).vms.map(({ id }) => id);
    const vms = await Promise.all(ids.map(async (ref) => await client.get(ref)));
    const setting = await settingFor(client, vms);
    output.result(
      {
        hosts: vms.map(({ id, view }) => ({
          vmId: id,
          host: hostName(view),
          options: Object.fromEntries(sshOptions(view, setting)),
        })),
      },
      vms.map(({ view }) => hostBlock(view, setting)).join("\n"),
    );
  });
}
