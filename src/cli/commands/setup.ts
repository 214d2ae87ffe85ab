/** `vmsan setup`: makes VMSAN_DIR ready, once; afterwards it takes a moment and no network. */
import { resolve } from "node:path";
import type { Command } from "commander";
import type { WarmReply } from "../../model/api.ts";
import type { PlannedItem, SetupItem } from "../../setup/index.ts";
import { collectList, command, interruptSignal, runs } from "../command.ts";
import type { Output } from "../output.ts";

interface Flags {
  runtime?: string[];
  offline?: boolean;
  mirror?: string;
  suite?: string;
  from?: string;
  bundle?: string;
  refresh?: boolean;
  firecracker?: string | true;
  firecrackerVersion?: string;
  plan?: boolean;
}

/** The definition. */
export function setupCommand(): Command {
  const target = command("setup", "fetch what VMs need: kernel, base image, programs")
    .option(
      "--runtime <NAME>",
      "runtimes to make, a comma list or `all` (default: base)",
      collectList,
    )
    .option("--plan", "only show what is there and what would be fetched")
    .option("--offline", "fetch nothing, say what is missing")
    .option("--mirror <URL>", "where Debian packages come from, instead of the host's source")
    .option("--suite <NAME>", "Debian release of the base image, instead of the host's")
    .option("--from <PATH>", "take everything from this bundle (a file, or unpacked)")
    .option("--bundle <FILE>", "afterwards write a bundle for hosts without a network")
    .option(
      "--firecracker [BASE]",
      "also Firecracker and its jailer, from this address or directory",
    )
    .option("--firecracker-version <X.Y.Z>", "another release than the pinned one")
    .option("--refresh", "make the runtimes again, with today's packages");
  return runs<Flags>(target, async ({ flags, output }) => {
    const { planSetup, runSetup, writeBundle } = await import("../../setup/index.ts");
    const { readCatalogue } = await import("../../runtimes/index.ts");
    const { layoutOf, vmsanDir } = await import("../../util/paths.ts");
    const { formatBytes } = await import("../../util/units.ts");
    const { progressView } = await import("../progress.ts");

    const layout = layoutOf(vmsanDir());
    const catalogue = await readCatalogue(`${layout.root}/runtimes.json`);
    const asked = flags.runtime ?? ["base"];
    const runtimes = asked.includes("all") ? Object.keys(catalogue) : asked;
    const interrupt = interruptSignal();
    const view = progressView(output, false);
    const options = {
      layout,
      runtimes,
      offline: flags.offline === true,
      refresh: flags.refresh === true,
      ...(flags.mirror === undefined ? {} : { mirror: flags.mirror }),
      ...(flags.suite === undefined ? {} : { suite: flags.suite }),
      ...(flags.from === undefined ? {} : { from: resolve(flags.from) }),
      ...(flags.firecracker === undefined
        ? {}
        : { firecracker: firecrackerSource(flags.firecracker, flags.firecrackerVersion) }),
      signal: interrupt.signal,
      progress: view.sink,
    };
    try {
      const plan = await planSetup(options);
      if (flags.plan === true) {
        output.result({ items: plan }, plan.map((item) => planLine(item, formatBytes)).join("\n"));
        return 0;
      }
      const fetched = plan.reduce((sum, item) => sum + item.fetchBytes, 0);
      if (fetched > 0 && flags.from === undefined && flags.offline !== true && !output.json) {
        const names = plan.filter(({ state }) => state === "missing").map(({ name }) => name);
        output.note(`setup: ${names.join(", ")}; about ${formatBytes(fetched)} to fetch`);
      }
      const report = await runSetup(options);
      view.close();
      let bundle: { file: string; bytes: number } | undefined;
      if (flags.bundle !== undefined && report.ok) {
        const file = resolve(flags.bundle);
        const bytes = await writeBundle({
          layout,
          catalogue,
          runtimes,
          file,
          signal: interrupt.signal,
        });
        bundle = { file, bytes };
        for (const name of runtimes.filter((each) => catalogue[each]?.image !== undefined)) {
          output.note(
            `${name} is not in the bundle, which holds what is made here; \`vmsan image save ${catalogue[name]?.image} -o FILE\` and \`vmsan image load -i FILE\` carry it`,
          );
        }
      }
      const lines = report.items.map(itemLine);
      if (bundle !== undefined)
        lines.push(`ok       bundle       ${bundle.file}, ${formatBytes(bundle.bytes)}`);
      const isNew = report.items.some(({ status }) => status === "made");
      const warm = isNew && report.ok && bundle === undefined && (await makeAhead(runtimes));
      if (warm) lines.push(warmLine(warm));
      const rest = { ...(bundle && { bundle }), ...(warm && { warm }) };
      output.result({ ...report, ...rest }, lines.join("\n"));
      sayMissing(output, report.items);
      return report.ok ? 0 : 1;
    } catch (error) {
      view.close();
      output.failure(error);
      const number = interrupt.number();
      return number === 0 ? 1 : 128 + number;
    } finally {
      view.close();
      interrupt.dispose();
    }
  });
}

/**
 * Have made, behind this command, what the first VM starts from, as the first VM leaves it for the second.
 * @returns what becomes of it; nothing where that is switched off
 */
async function makeAhead([runtime]: readonly string[]): Promise<WarmReply | undefined> {
  const { Vmsan } = await import("../../client/vmsan.ts");
  const { createRequest } = await import("../../client/options.ts");
  const { vmsanDir } = await import("../../util/paths.ts");
  const { messageOf } = await import("../../model/errors.ts");
  const options = runtime === undefined ? {} : { image: runtime };
  if (createRequest(options).warm === false) return undefined;
  try {
    return await new Vmsan({ dir: vmsanDir() }).warm(options);
  } catch (error) {
    // All is there that VMs need: what keeps a daemon from starting is told by whoever needs one.
    return { kept: false, why: messageOf(error) };
  }
}

/** One line of what is made for the first VM. */
function warmLine({ kept, why }: WarmReply): string {
  return kept
    ? "later    first VM     a booted machine for it is made in the background (VMSAN_WARM=off: not)"
    : `-        first VM     boots: ${why}`;
}

/** One line of the plan. */
function planLine(item: PlannedItem, bytes: (count: number) => string): string {
  const size =
    item.state === "missing" && item.fetchBytes > 0 ? `, ~${bytes(item.fetchBytes)}` : "";
  return `${item.state.padEnd(8)} ${item.name.padEnd(12)} ${item.detail}${size}`;
}

/** One line of the report. */
function itemLine(item: SetupItem): string {
  const word = { cached: "ok", made: "made", skipped: "-", failed: "FAILED" }[item.status];
  return `${word.padEnd(8)} ${item.name.padEnd(12)} ${item.detail}`;
}

/** For people: what is missing and how to get it. */
function sayMissing(output: Output, items: readonly SetupItem[]): void {
  if (output.json) return;
  for (const { name, error } of items) {
    if (error === undefined) continue;
    output.note(`${name}: ${error.message} [${error.code}]`);
    if (error.why !== undefined) output.note(`  why: ${error.why}`);
    if (error.fix !== undefined) output.note(`  fix: ${error.fix}`);
  }
}

/** Where Firecracker comes from; a directory is made absolute. */
function firecrackerSource(
  base: string | true,
  version: string | undefined,
): { base?: string; version?: string } {
  return {
    ...(base === true ? {} : { base: /^[a-z]+:/.test(base) ? base : resolve(base) }),
    ...(version === undefined ? {} : { version }),
  };
}
