/** `vmsan stats`: what VMs use, live. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Command } from "commander";
import { ratesOf } from "../../../model/stats.ts";
import type { VmRates, VmSample } from "../../../model/stats.ts";
import { formatBytes } from "../../../util/units.ts";
import { command, interruptSignal, runs } from "../../command.ts";
import type { Output } from "../../output.ts";
import { table } from "../../output.ts";

/** Time between samples, in milliseconds. */
const PAUSE_MS = 1_000;

interface Flags {
  /** False with --no-stream. */
  stream: boolean;
  all?: boolean;
}

type Row = VmSample & VmRates;

/** The newer samples with what was used since the older ones. */
function withRates(before: readonly VmSample[], after: readonly VmSample[]): Row[] {
  return after.map((sample) => {
    const earlier = before.find(({ id }) => id === sample.id);
    return { ...sample, ...(earlier === undefined ? {} : ratesOf(earlier, sample)) };
  });
}

const percent = (value: number | undefined): string =>
  value === undefined ? "-" : `${value.toFixed(1)}%`;

/** Two sizes, or what there is of them. */
const pair = (one: number | undefined, other: number | undefined): string =>
  one === undefined || other === undefined ? "-" : `${formatBytes(one)} / ${formatBytes(other)}`;

function cells({ id, name, status, host, guest, ...row }: Row): string[] {
  const used = guest && guest.memTotalBytes - guest.memAvailableBytes;
  // The guest's own card where the host cannot see it.
  const received = host?.receivedBytes ?? guest?.receivedBytes;
  const sent = host?.sentBytes ?? guest?.sentBytes;
  return [
    id,
    name ?? "-",
    status,
    percent(row.hostCpuPercent),
    percent(row.guestCpuPercent),
    pair(used, guest?.memTotalBytes),
    host === undefined ? "-" : formatBytes(host.residentBytes),
    host === undefined ? "-" : formatBytes(host.diskBytes),
    pair(received, sent),
    guest === undefined ? "-" : String(guest.processes),
  ];
}

const HEAD = [
  "ID",
  "NAME",
  "STATUS",
  "CPU",
  "GUEST CPU",
  "GUEST MEMORY",
  "HOST MEMORY",
  "DISK",
  "NET IN / OUT",
  "PROCESSES",
];

/** Prints tables, on a terminal each in the place of the one before. */
class Screen {
  private lines = 0;

  show(rows: readonly Row[], output: Output): void {
    if (process.stdout.isTTY && !output.json && this.lines > 0) {
      process.stdout.write(`\u001B[${this.lines}A\u001B[J`);
    }
    this.lines = rows.length + 1;
    output.result({ vms: rows }, table([HEAD, ...rows.map(cells)]));
  }
}

/** The definition. */
export function statsCommand(): Command {
  const target = command("stats [vms...]", "what VMs use: processor, memory, disk, network")
    .option("--all", "also VMs that do not run")
    .option("--no-stream", "two samples a second apart, then end");
  return runs<Flags>(target, async ({ flags, output, vmsan }, refs: string[]) => {
    const interrupt = interruptSignal();
    const client = await vmsan();
    const shown = flags.all === true || refs.length > 0;
    const screen = new Screen();
    let before = await client.stats(refs);
    do {
      // An interrupt ends the wait.
      await sleep(PAUSE_MS, undefined, { signal: interrupt.signal }).catch(() => undefined);
      if (interrupt.signal.aborted) break;
      const after = await client.stats(refs);
      const rows = withRates(before, after).filter(
        ({ status }) => shown || status === "running" || status === "paused",
      );
      screen.show(rows, output);
      before = after;
    } while (flags.stream);
    interrupt.dispose();
  });
}
