/** `vmsan daemon`: the process that keeps VMs; started by itself when it is needed. */
import type { Command } from "commander";
import { command, runs } from "../command.ts";

/** Its process, which a gateway does not tell. */
function pidOf(info: { pid?: number } | undefined): string {
  return info?.pid === undefined ? "" : `, pid ${info.pid}`;
}

/** The definition. */
export function daemonCommand(): Command {
  const target = command("daemon", "the process that keeps VMs; started when it is needed");
  const status = runs(command("status", "whether it runs"), async (context) => {
    const info = await (await context.vmsan()).daemon.info();
    context.output.result(
      { running: info !== undefined, ...info },
      info === undefined ? "not running" : `running${pidOf(info)}, version ${info.version}`,
    );
  });
  const start = runs(command("start", "start it now"), async (context) => {
    const vmsan = await context.vmsan();
    await vmsan.list();
    const info = await vmsan.daemon.info();
    context.output.result({ running: true, ...info }, `running${pidOf(info)}`);
  });
  const stop = runs(command("stop", "end it; its VMs go on"), async (context) => {
    const stopped = await (await context.vmsan()).daemon.stop();
    context.output.result({ stopped }, stopped ? "stopped" : "it did not run");
  });
  const logs = runs(command("logs", "print its log"), async (context) => {
    const { readFile } = await import("node:fs/promises");
    const { layoutOf, vmsanDir } = await import("../../util/paths.ts");
    const path = layoutOf(vmsanDir()).daemonLog;
    const text = await readFile(path, "utf8").catch(() => "");
    context.output.result(
      { path, lines: text.split("\n").filter((line) => line !== "") },
      text.trimEnd(),
    );
  });
  for (const child of [status, start, stop, logs]) target.addCommand(child);
  return target;
}
