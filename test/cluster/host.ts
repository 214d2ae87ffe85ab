/** One host of a cluster: a network namespace with a vmsan daemon and `vmsan node`, and a VMSAN_DIR of its own. */
import { createHash } from "node:crypto";
import { copyFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { Vmsan } from "../../src/client/vmsan.ts";
import type { VmView } from "../../src/model/api.ts";
import { layoutOf } from "../../src/util/paths.ts";
import { freshDir, processesOf, removeDir, vmsanBin } from "../e2e/support.ts";
import { GRACE_SECONDS } from "./cluster.ts";
import type { Cluster } from "./cluster.ts";
import { Program } from "./processes.ts";

/** What a host is made of. */
export interface HostOptions {
  driver: "auto" | "fake";
  /** Archives of images that it has from the beginning. */
  archives: readonly string[];
  /** It is known by this ServiceAccount (`NAMESPACE:NAME`), and not by a node's certificate. */
  account?: string;
  /** More words of its `vmsan node run`. */
  words?: readonly string[];
}

/** Words by which a host's node is known to the cluster. */
function identity(cluster: Cluster, name: string, address: string, token?: string): string[] {
  if (token === undefined) {
    const subject = { subject: `/O=system:nodes/CN=system:node:${name}` };
    return [`--kubeconfig=${cluster.kubeconfig(name, subject)}`];
  }
  // The cluster gives certificates for servers to nodes alone.
  const serving = cluster.authority.issue(`${name}-serving`, `/CN=${name}`, [`IP:${address}`]);
  return [
    `--kubeconfig=${cluster.kubeconfig(name, { token })}`,
    `--tls-cert=${serving.certFile}`,
    `--tls-key=${serving.keyFile}`,
  ];
}

/** A host and its node. */
export class Host {
  readonly name: string;
  readonly dir: string;
  readonly vmsan: Vmsan;
  readonly node: Program;
  /** Take the host's link away, or give it back. */
  readonly cut: (off: boolean) => void;

  private constructor(
    cluster: Cluster,
    name: string,
    dir: string,
    options: HostOptions,
    token: string | undefined,
  ) {
    const { netns, address, cut } = cluster.network.host();
    this.name = name;
    this.dir = dir;
    this.cut = cut;
    this.vmsan = new Vmsan({ dir });
    const kind = options.driver === "fake" ? "fake" : "real";
    const words = [
      vmsanBin,
      "node",
      "run",
      `--name=${name}`,
      ...identity(cluster, name, address, token),
    ];
    const more = [
      `--address=${address}`,
      `--driver=${options.driver}`,
      `--label=driver=${kind}`,
      `--client-ca=${cluster.authority.certFile}`,
      `--grace-period=${GRACE_SECONDS}`,
      ...(options.words ?? []),
    ];
    const log = join(cluster.dir, `${name}.log`);
    this.node = new Program(name, netns, [...words, ...more], log, { VMSAN_DIR: dir });
  }

  /** Make a host and start its node. */
  static async start(cluster: Cluster, name: string, options: HostOptions): Promise<Host> {
    const dir = await freshDir(["kernels", "initramfs", "probes"]);
    const token = options.account === undefined ? undefined : await cluster.token(options.account);
    const host = new Host(cluster, name, dir, options, token);
    cluster.add({
      tail: () => host.node.tail(),
      close: async () => {
        await host.node.stop("SIGKILL");
        await removeDir(dir);
      },
    });
    // The daemon is to be in the host's network: the node starts it there.
    host.node.start();
    await cluster.until(`node ${name} answers the API server`, async () => {
      await cluster.approveCertificates();
      const path = `/api/v1/nodes/${name}/proxy/healthz`;
      return (await cluster.call(["get", "--raw", path])).code === 0;
    });
    for (const archive of options.archives) await host.vmsan.images.load(archive);
    return host;
  }

  /** Its VMs. */
  async vms(): Promise<VmView[]> {
    return (await this.vmsan.survey()).vms;
  }

  /** Process ID of its daemon; undefined while none runs. */
  daemonPid(): number | undefined {
    const line = processesOf(this.dir).find((one) => one.includes("daemon/main"));
    return line === undefined ? undefined : Number(line.split(" ", 1)[0]);
  }

  /** Copy what the node and the daemon have written of themselves. @param dir made */
  async keepLogs(dir: string): Promise<void> {
    const { node, daemonLog } = layoutOf(this.dir);
    await mkdir(dir, { recursive: true });
    await copyFile(join(node, "node.log"), join(dir, "node.log"));
    await copyFile(daemonLog, join(dir, "daemon.log"));
  }

  /** The digest of what a guest has at a path, for comparisons. */
  static digest(bytes: Uint8Array): string {
    return createHash("sha256").update(bytes).digest("hex");
  }
}
