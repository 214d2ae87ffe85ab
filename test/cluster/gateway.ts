/** `vmsan serve` in front of a cluster, where the control plane is. */
import { join } from "node:path";
import { Keys } from "../../src/gateway/access/keys.ts";
import { layoutOf } from "../../src/util/paths.ts";
import { DockerCli, findDocker } from "../fixtures/docker-cli.ts";
import { writeTemplate } from "../fixtures/e2b-template.ts";
import { freshDir, removeDir, vmsanBin } from "../e2e/support.ts";
import type { Cluster } from "./cluster.ts";
import { Program } from "./processes.ts";

const LISTEN = "127.0.0.1:7300";

/** What E2B's SDK has found (e2b-session.ts). */
export interface E2bSession {
  id: string;
  stdout: string;
  exitCode: number;
  same: boolean;
  ids: boolean[];
  pause: string;
  counted: string;
  gone: boolean;
}

/** A gateway with a template and a key. */
export class ClusterGateway {
  /** Docker's own command line, with pods for containers. */
  readonly docker: DockerCli;
  private readonly cluster: Cluster;
  private readonly key: string;

  private constructor(cluster: Cluster, key: string, docker: DockerCli) {
    this.cluster = cluster;
    this.key = key;
    this.docker = docker;
  }

  /** Start one; it ends with the cluster. @param image of the template `small` */
  static async start(cluster: Cluster, image: string): Promise<ClusterGateway> {
    const dir = await freshDir([]);
    const { gateway: directory } = layoutOf(dir);
    await writeTemplate(directory, "small", image);
    const { text } = await new Keys(directory).create({ project: "ours" });
    const socket = join(dir, "docker.sock");
    const words = ["--cluster", `--kubeconfig=${cluster.admin}`, `--docker=unix://${socket}`];
    const program = new Program(
      "gateway",
      cluster.network.hub,
      [vmsanBin, "serve", `--listen=${LISTEN}`, ...words],
      join(cluster.dir, "gateway.log"),
      { VMSAN_DIR: dir },
    );
    cluster.add({
      tail: () => program.tail(),
      close: async () => {
        await program.stop("SIGTERM");
        await removeDir(dir);
      },
    });
    program.start();
    const cli = await findDocker();
    const docker = new DockerCli(cli, () => ({ DOCKER_HOST: `unix://${socket}`, HOME: dir }));
    await cluster.until("the gateway serves", async () => {
      return (await docker.run(["version"])).code === 0;
    });
    return new ClusterGateway(cluster, `e2b_${text}`, docker);
  }

  /** What E2B's SDK does with it. @param file a path in the guest, which is made */
  async e2b(file: string): Promise<E2bSession> {
    const script = join(import.meta.dirname, "e2b-session.ts");
    const argv = [process.execPath, script, `http://${LISTEN}`, this.key, "small", file];
    const { code, stdout, stderr } = await this.cluster.inHub(argv, { timeoutMs: 500_000 });
    if (code !== 0) throw new Error(`E2B's SDK: ${code}\n${stderr}`);
    return JSON.parse(stdout.toString()) as E2bSession;
  }
}
