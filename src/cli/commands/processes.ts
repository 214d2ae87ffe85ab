/** `ps`, `wait`, `kill`: commands that run, or have run, in a VM. */
import type { Command } from "commander";
import { command, runs } from "../command.ts";
import { table } from "../output.ts";

/** `ps VM`. */
export function psCommand(): Command {
  return runs(
    command("ps <vm>", "commands that run, or have run, in a VM"),
    async (context, ref: string) => {
      const vm = await (await context.vmsan()).get(ref);
      const { listStreams } = await import("../../agent/commands.ts");
      const streams = await listStreams(vm.transport);
      const commands = streams.filter(({ kind }) => kind === "exec");
      context.output.result(
        { vmId: vm.id, commands },
        table([
          ["ID", "PID", "USER", "STATUS", "STARTED", "COMMAND"],
          ...commands.map((info) => [
            info.id,
            info.running ? String(info.pid) : "-",
            info.user || "root",
            info.running ? "running" : `exited ${info.exit?.exitCode ?? ""}`,
            info.startedAt,
            info.argv.join(" ") || "(login shell)",
          ]),
        ]),
      );
    },
  );
}

/** `wait VM COMMAND`. */
export function waitCommand(): Command {
  return runs(
    command("wait <vm> <command>", "wait for a detached command; its status becomes this one's"),
    async (context, ref: string, id: string) => {
      const vm = await (await context.vmsan()).get(ref);
      const { requireId } = await import("../session/logs.ts");
      const { waitStream } = await import("../../agent/commands.ts");
      const { exit } = await waitStream(vm.transport, requireId(id));
      context.output.result({
        vmId: vm.id,
        commandId: id,
        exitCode: exit?.exitCode ?? null,
        signal: exit?.signal ?? null,
        durationMs: exit?.durationMs ?? null,
      });
      return exit?.exitCode ?? 1;
    },
  );
}

/** `kill VM COMMAND`. */
export function killCommand(): Command {
  const target = command("kill <vm> <command>", "signal a command and all it started").option(
    "-s, --signal <name>",
    "signal to send",
    "TERM",
  );
  return runs<{ signal: string }>(target, async (context, ref: string, id: string) => {
    const vm = await (await context.vmsan()).get(ref);
    const { requireId } = await import("../session/logs.ts");
    const { signalNumber } = await import("../../agent/spec.ts");
    const { invalid } = await import("../../util/units.ts");
    const { signal } = context.flags;
    if (signalNumber(signal) === undefined) {
      throw invalid("FLAGS", "signal", signal, "There is no such signal.", "For example: -s TERM.");
    }
    const name =
      /^\d/.test(signal) || signal.toUpperCase().startsWith("SIG") ? signal : `SIG${signal}`;
    await vm.transport.request("POST", `/v1/streams/${requireId(id)}/signal`, {
      body: { signal: name.toUpperCase(), tree: true },
    });
    context.output.result({ vmId: vm.id, commandId: id, signal: name.toUpperCase() });
  });
}
