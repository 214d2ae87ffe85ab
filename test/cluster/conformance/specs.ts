/** Kubernetes' tests as ginkgo names them: which there are, in which share of a run each is, and how they went. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { measured } from "../../../bench/lib/bench.ts";
import type { Cluster } from "../cluster.ts";
import { Network } from "../namespaces.ts";

/** One test in ginkgo's report. */
export interface Spec {
  ContainerHierarchyTexts: string[] | null;
  LeafNodeText: string;
  LeafNodeType: string;
  State: string;
  RunTime: number;
  Failure?: { Message: string };
}

/** A test's name with its labels in brackets, as patterns are matched. */
export const nameOf = ({ ContainerHierarchyTexts, LeafNodeText }: Spec): string =>
  [...(ContainerHierarchyTexts ?? []), LeafNodeText].join(" ");

/** A pattern that matches a text alone. */
const literally = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, String.raw`\$&`);

/** Runs the tests' program. */
export class Suite {
  private readonly cluster: Cluster;
  private readonly program: string;
  private readonly results: string;

  /** @param results directory for logs and ginkgo's reports; made */
  constructor(cluster: Cluster, program: string, results: string) {
    this.cluster = cluster;
    this.program = program;
    this.results = results;
  }

  /** Run what a pattern matches, or only list it. @param name of the log and the report */
  private async run(name: string, focus: string, more: readonly string[]): Promise<Spec[]> {
    const { cluster, program, results } = this;
    await mkdir(results, { recursive: true });
    const report = join(results, `${name}.json`);
    const log = createWriteStream(join(results, `${name}.txt`));
    const [command = "", ...before] = Network.inside(cluster.network.hub);
    const words = [
      program,
      `-kubeconfig=${cluster.admin}`,
      `-kubectl-path=${cluster.programs.kubectl.newest}`,
      "-provider=skeleton",
      "-num-nodes=1",
      `-ginkgo.focus=${focus}`,
      `-ginkgo.json-report=${report}`,
      "-ginkgo.no-color",
      "-ginkgo.v",
      "-delete-namespace=true",
      "-dump-logs-on-failure=false",
      ...more,
    ];
    const child = spawn(command, [...before, ...words], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, HOME: cluster.dir },
    });
    measured(child);
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    await once(child, "close");
    log.end();
    type Report = { SpecReports: Spec[] | null };
    const [suite] = JSON.parse(await readFile(report, "utf8")) as Report[];
    return (suite?.SpecReports ?? []).filter(({ LeafNodeType }) => LeafNodeType === "It");
  }

  /** All tests that a pattern matches. */
  async list(focus: string): Promise<Spec[]> {
    const all = await this.run("list", focus, ["-ginkgo.dry-run"]);
    return all.filter(({ State }) => State !== "skipped");
  }

  /**
   * Run tests by their names.
   * @param what for the names of logs
   * @param together how many at a time
   * @param limit as ginkgo has it, e.g. `3h`
   */
  async each(
    what: string,
    names: readonly string[],
    together: number,
    limit: string,
  ): Promise<Spec[]> {
    const parts = Array.from({ length: together }, (_, part) =>
      names.filter((_name, index) => index % together === part),
    ).filter((part) => part.length > 0);
    const ran = await Promise.all(
      parts.map(async (part, index) => {
        const focus = `^.*(${part.map(literally).join("|")})$`;
        return await this.run(`${what}-${index}`, focus, [`-ginkgo.timeout=${limit}`]);
      }),
    );
    // Others were not begun, or were cut off by the limit.
    const ended = ["passed", "failed", "panicked"];
    return ran.flat().filter((spec) => names.includes(nameOf(spec)) && ended.includes(spec.State));
  }
}
