/** `vmsan doctor`: what this host can do, and what is in the way. */
import type { Command } from "commander";
import { command, interruptSignal, runs } from "../command.ts";

/** The definition. */
export function doctorCommand(): Command {
  const target = command("doctor", "check this host; exit status 1 when a check fails").option(
    "--fix",
    "clean up what dead processes left",
  );
  return runs<{ fix?: boolean }>(target, async (context) => {
    const { runDoctor } = await import("../../doctor/doctor.ts");
    const { layoutOf, vmsanDir } = await import("../../util/paths.ts");
    const interrupt = interruptSignal();
    try {
      const report = await runDoctor({
        layout: layoutOf(vmsanDir()),
        signal: interrupt.signal,
        fix: context.flags.fix === true,
        daemon: async () => await (await context.vmsan()).daemon.info(),
      });
      const lines = report.checks.flatMap(({ name, status, detail, fix, fixed }) => {
        const word = { ok: "ok", warn: "WARN", fail: "FAIL", skip: "-" }[status];
        const line = `${word.padEnd(5)} ${name.padEnd(16)} ${fixed ?? detail}`;
        const showFix = fix !== undefined && (status === "warn" || status === "fail");
        return showFix ? [line, `${" ".repeat(23)}fix: ${fix}`] : [line];
      });
      const count = (status: string): number =>
        report.checks.filter((check) => check.status === status).length;
      lines.push(`${count("ok")} ok, ${count("warn")} warnings, ${count("fail")} failed`);
      context.output.result(report, lines.join("\n"));
      return report.ok ? 0 : 1;
    } finally {
      interrupt.dispose();
    }
  });
}
