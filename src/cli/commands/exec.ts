/** `vmsan exec`: run a command in a VM. */
import type { Command } from "commander";
import { parseDuration } from "../../util/units.ts";
import { collect, command, runs } from "../command.ts";
import { withCallersValues } from "../environment.ts";

/** Flags of commands that run something in a guest. */
export interface ExecFlags {
  sudo?: boolean;
  interactive?: boolean;
  tty?: boolean;
  workdir?: string;
  env?: string[];
  user?: string;
  timeout?: string;
  detach?: boolean;
  /** False: --no-extend-timeout. */
  extendTimeout?: boolean;
}

/** The definition. */
export function execCommand(): Command {
  const target = command("exec <vm> <command...>", "run a command in a VM")
    .option("--sudo", "as root")
    .option("-i, --interactive", "pass standard input through, also from a terminal")
    .option("-t, --tty", "with a terminal")
    .option("-w, --workdir <path>", "working directory")
    .option("-e, --env <key=value>", "environment; KEY alone: from here; repeatable", collect)
    .option("-u, --user <user>", "name, uid, name:group or uid:gid")
    .option(
      "--timeout <duration>",
      "end it and all it started: 30s, 5m, 1h; a bare number is minutes",
    )
    .option("-d, --detach", "print its ID and let it run")
    .option("--no-extend-timeout", "-i and -t do not renew the VM's time limit")
    .optionsBehind();
  return runs<ExecFlags>(target, async ({ flags, output, vmsan }, ref: string, argv: string[]) => {
    const timeoutMs = flags.timeout === undefined ? undefined : parseDuration(flags.timeout);
    const { execInTerminal } = await import("../session/exec.ts");
    const vm = await (await vmsan()).get(ref);
    return await execInTerminal(
      vm,
      {
        argv,
        ...(flags.env === undefined ? {} : { env: withCallersValues(flags.env, process.env) }),
        ...(flags.workdir === undefined ? {} : { workdir: flags.workdir }),
        ...(flags.sudo === true ? { user: "root" } : {}),
        ...(flags.user === undefined ? {} : { user: flags.user }),
        ...(timeoutMs === undefined ? {} : { timeoutMs }),
        detach: flags.detach === true,
        tty: flags.tty === true,
        interactive: flags.interactive === true,
        extendTimeout: flags.extendTimeout !== false,
      },
      output,
    );
  });
}
