/**
 * Kills in a cluster, many of them: what is killed and when is chance. Two hosts have the fake driver, one boots. Meanwhile a
 * command counts in a pod of each host, and one more is held by `vmsan exec`; none may end, miss a number or say one twice.
 *
 *   node test/cluster/soak.ts [--kills N]      with the kernel of the VMSAN_DIR that is set; as root
 *
 * Prints a JSON line for each kill, and one of all. What the hosts have logged is kept in test-results/ when something does not hold.
 */
import { rm } from "node:fs/promises";
import { loadavg } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { bench } from "../../bench/lib/bench.ts";
import { POD_LABEL } from "../../src/node/pods/spec/plan.ts";
import { Cluster } from "./cluster.ts";
import { Host } from "./host.ts";
import { AGREE_MS, killRounds } from "./kills.ts";
import type { Round } from "./kills.ts";
import { REAL, deployment, pod } from "./objects.ts";
import type { PodList } from "./objects.ts";
import { toolsArchive } from "./tools-image.ts";

const { values } = parseArgs({ options: { kills: { type: "string", default: "100" } } });
const kills = Number(values.kills);

const COUNT = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.1; done";
const RESULTS = resolve(import.meta.dirname, "../../test-results/soak");

const report = (line: object): void => console.log(JSON.stringify(line));

/** Whether these are the whole numbers from 0. */
function counts(text: string): boolean {
  const lines = text.split("\n").slice(0, -1);
  return lines.length > 20 && lines.every((line, index) => line === String(index));
}

/** A pod on each host whose command counts; commands beside it that do, too. */
class Counting {
  private readonly cluster: Cluster;
  private readonly hosts: readonly Host[];
  private readonly beside: { host: Host; output: string; ended: boolean; detach: () => void }[] =
    [];

  constructor(cluster: Cluster, hosts: readonly Host[]) {
    this.cluster = cluster;
    this.hosts = hosts;
  }

  async begin(): Promise<void> {
    const container = { command: ["sh", "-c", COUNT] };
    for (const { name } of this.hosts) {
      const where = { "kubernetes.io/hostname": name };
      await this.cluster.apply(pod(`count-${name}`, { container, nodeSelector: where }));
    }
    await this.cluster.ok(["wait", "--for=condition=Ready", "pod", "--all", "--timeout=240s"], {
      timeoutMs: 300_000,
    });
    for (const host of this.hosts) {
      const { metadata } = await this.cluster.json<PodList["items"][number]>([
        "get",
        "pod",
        `count-${host.name}`,
      ]);
      const vm = (await host.vmsan.vms()).find(
        ({ view }) => view.labels[POD_LABEL] === metadata.uid,
      );
      if (vm === undefined) throw new Error(`${host.name} has no VM that counts`);
      const held = { host, output: "", ended: false, detach: (): void => stream.detach() };
      const stream = vm.spawn(
        ["sh", "-c", COUNT],
        {},
        {
          onStdout: (bytes) => void (held.output += bytes.toString()),
          reconnectMs: 600_000,
        },
      );
      await stream.started;
      stream.exit.then(
        () => (held.ended = true),
        () => (held.ended = true),
      );
      this.beside.push(held);
    }
  }

  /** What does not hold. */
  async faults(): Promise<string[]> {
    const faults: string[] = [];
    for (const { host, output, ended, detach } of this.beside) {
      if (ended) faults.push(`the command beside count-${host.name} has ended`);
      if (!counts(output)) faults.push(`the command beside count-${host.name} has lost something`);
      detach();
    }
    for (const { name } of this.hosts) {
      const of = `count-${name}`;
      const { status } = await this.cluster.json<PodList["items"][number]>(["get", "pod", of]);
      if (status.containerStatuses?.[0]?.restartCount !== 0) faults.push(`${of} was started again`);
      const log = await this.cluster.ok(["logs", of]);
      if (!counts(log)) faults.push(`the log of ${of} has lost something`);
    }
    return faults;
  }
}

/** Figures of some rounds. */
function summary(rounds: readonly Round[]): object {
  const of = (key: "agreedMs" | "rolledOutMs"): object => {
    const sorted = rounds.map((round) => Math.round(round[key])).toSorted((a, b) => a - b);
    return { median: sorted[sorted.length >> 1], most: sorted.at(-1) };
  };
  return { kills: rounds.length, agreedMs: of("agreedMs"), rolledOutMs: of("rolledOutMs") };
}

async function soak(cluster: Cluster, hosts: readonly Host[]): Promise<string[]> {
  const deployments = [
    { name: "moved", replicas: [6, 4] },
    { name: "booted", replicas: [2, 1] },
  ] as const;
  await cluster.apply(deployment("moved", 4), deployment("booted", 1, {}, REAL));
  const counting = new Counting(cluster, hosts);
  await counting.begin();
  const done: Round[] = [];
  const faults: string[] = [];
  for await (const round of killRounds(cluster, hosts, {
    rounds: kills,
    deployments,
    order: "chance",
  })) {
    const load = Number(loadavg()[0]?.toFixed(1));
    report({
      ...round,
      agreedMs: Math.round(round.agreedMs),
      rolledOutMs: Math.round(round.rolledOutMs),
      load,
    });
    done.push(round);
    if (round.agreedMs > AGREE_MS) {
      faults.push(
        `round ${round.round} (${round.what}): agreed after ${Math.round(round.agreedMs)} ms`,
      );
    }
  }
  faults.push(...(await counting.faults()));
  for (const [what, rounds] of Map.groupBy(done, (round) => round.what))
    report({ what, ...summary(rounds) });
  report({ what: "all", ...summary(done), faults });
  return faults;
}

await bench("soak", async ({ dir, defer }) => {
  const { path } = await toolsArchive(dir, "1");
  const cluster = await Cluster.start();
  defer(async () => await cluster.close());
  const fake = { driver: "fake", archives: [path] } as const;
  const hosts = await Promise.all([
    Host.start(cluster, "host-1", fake),
    Host.start(cluster, "host-2", fake),
    Host.start(cluster, "host-3", { driver: "auto", archives: [path] }),
  ]);
  await cluster.ok(["wait", "--for=condition=Ready", "node", "--all", "--timeout=120s"]);
  let faults = ["not carried through"];
  try {
    faults = await soak(cluster, hosts);
  } finally {
    if (faults.length > 0) {
      process.exitCode = 1;
      await rm(RESULTS, { recursive: true, force: true });
      for (const host of hosts) await host.keepLogs(join(RESULTS, host.name));
      console.error(`logs of the hosts: ${RESULTS}`);
    }
  }
});
