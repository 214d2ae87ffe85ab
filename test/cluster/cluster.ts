/**
 * A real Kubernetes control plane in network namespaces of the test's own: etcd, API server, scheduler and controller
 * manager, with certificates made for it; kubectl in two versions. Nothing of it stays.
 */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Authority } from "../fixtures/certificates.ts";
import type { Issued } from "../fixtures/certificates.ts";
import { Network } from "./namespaces.ts";
import { Program } from "./processes.ts";
import { clusterPrograms } from "./programs.ts";
import type { ClusterPrograms } from "./programs.ts";

/** How a command ended. */
export interface Ended {
  code: number | null;
  stdout: Buffer;
  stderr: string;
}

/** What a command is run with. */
export interface CallOptions {
  input?: Uint8Array | string;
  /** Which kubectl; default the newest. */
  version?: keyof ClusterPrograms["kubectl"];
  env?: Record<string, string>;
  timeoutMs?: number;
  /** Receives the running process. */
  onProcess?: (child: ChildProcess) => void;
}

/** What a control plane is started with. */
export interface ClusterOptions {
  /** More words of the scheduler. */
  scheduler?: readonly string[];
  /** The API server hands requests for groups of APIs on to other servers. */
  aggregation?: boolean;
}

/** How long a node may be silent until it is given up, in seconds. */
export const GRACE_SECONDS = 30;

/** What stands on a cluster, and ends before it. */
export interface Tenant {
  /** The end of its log. */
  tail: () => string;
  close: () => Promise<void>;
}

/** How long the control plane has to come up, on a machine that has other work too. */
const READY_MS = 180_000;

/** The control plane of one test file. */
export class Cluster {
  readonly dir: string;
  readonly network: Network;
  readonly programs: ClusterPrograms;
  readonly authority: Authority;
  readonly url: string;
  /** kubeconfig of an administrator. */
  readonly admin: string;
  readonly etcd: Program;
  readonly apiServer: Program;
  readonly scheduler: Program;
  readonly controllers: Program;
  private readonly tenants: Tenant[] = [];

  private constructor(
    dir: string,
    network: Network,
    programs: ClusterPrograms,
    { scheduler = [], aggregation = false }: ClusterOptions,
  ) {
    this.dir = dir;
    this.network = network;
    this.programs = programs;
    this.url = `https://${network.hubAddress}:6443`;
    this.authority = new Authority(join(dir, "ca"));
    this.admin = this.kubeconfig("admin", { subject: "/O=system:masters/CN=admin" });
    const server = this.authority.issue("apiserver", "/CN=kube-apiserver", [
      `IP:${network.hubAddress}`,
      "IP:127.0.0.1",
      "IP:10.98.0.1",
    ]);
    const toNodes = this.authority.issue(
      "to-nodes",
      "/O=system:masters/CN=kube-apiserver-kubelet-client",
    );
    const accounts = join(dir, "accounts.key");
    const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    writeFileSync(accounts, privateKey.export({ type: "pkcs8", format: "pem" }));
    const program = (name: string, argv: readonly string[]): Program =>
      new Program(name, network.hub, argv, join(dir, `${name}.log`));
    this.etcd = program("etcd", [
      programs.etcd,
      `--data-dir=${join(dir, "etcd")}`,
      "--listen-client-urls=http://127.0.0.1:2379",
      "--advertise-client-urls=http://127.0.0.1:2379",
      "--listen-peer-urls=http://127.0.0.1:2380",
      "--initial-advertise-peer-urls=http://127.0.0.1:2380",
      "--initial-cluster=default=http://127.0.0.1:2380",
      "--log-level=warn",
      // Processes are killed here, not the machine.
      "--unsafe-no-fsync",
    ]);
    this.apiServer = program("apiserver", [
      programs.controlPlane,
      "apiserver",
      "--etcd-servers=http://127.0.0.1:2379",
      `--bind-address=${network.hubAddress}`,
      `--advertise-address=${network.hubAddress}`,
      "--secure-port=6443",
      `--tls-cert-file=${server.certFile}`,
      `--tls-private-key-file=${server.keyFile}`,
      `--client-ca-file=${this.authority.certFile}`,
      `--kubelet-client-certificate=${toNodes.certFile}`,
      `--kubelet-client-key=${toNodes.keyFile}`,
      `--kubelet-certificate-authority=${this.authority.certFile}`,
      "--service-account-issuer=https://kubernetes.default.svc",
      `--service-account-key-file=${accounts}`,
      `--service-account-signing-key-file=${accounts}`,
      "--authorization-mode=Node,RBAC",
      "--enable-admission-plugins=NodeRestriction",
      "--enable-bootstrap-token-auth=true",
      "--service-cluster-ip-range=10.98.0.0/24",
      "--endpoint-reconciler-type=none",
      ...(aggregation ? this.aggregation() : []),
    ]);
    const asItself = (name: string): string[] => {
      const config = this.kubeconfig(name, { subject: `/CN=system:kube-${name}` });
      return [
        `--kubeconfig=${config}`,
        `--authentication-kubeconfig=${config}`,
        `--authorization-kubeconfig=${config}`,
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
      ];
    };
    this.scheduler = program("scheduler", [
      programs.controlPlane,
      "scheduler",
      ...asItself("scheduler"),
      ...scheduler,
    ]);
    this.controllers = program("controllers", [
      programs.controlPlane,
      "controller-manager",
      ...asItself("controller-manager"),
      "--use-service-account-credentials=true",
      `--node-monitor-grace-period=${GRACE_SECONDS}s`,
      "--node-monitor-period=2s",
      `--service-account-private-key-file=${accounts}`,
      `--root-ca-file=${this.authority.certFile}`,
      `--cluster-signing-cert-file=${this.authority.certFile}`,
      `--cluster-signing-key-file=${this.authority.keyFile}`,
    ]);
  }

  /** Words by which other servers know the API server, and are reached without what leads to Services. */
  private aggregation(): string[] {
    const front = this.authority.issue("front-proxy", "/CN=front-proxy");
    return [
      "--enable-aggregator-routing=true",
      `--proxy-client-cert-file=${front.certFile}`,
      `--proxy-client-key-file=${front.keyFile}`,
      `--requestheader-client-ca-file=${this.authority.certFile}`,
      "--requestheader-allowed-names=front-proxy",
      "--requestheader-username-headers=X-Remote-User",
      "--requestheader-group-headers=X-Remote-Group",
      "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    ];
  }

  /** Start one and wait until it answers; whatever goes wrong, nothing stays. */
  static async start(options: ClusterOptions = {}): Promise<Cluster> {
    const programs = await clusterPrograms();
    const dir = await mkdtemp(join(tmpdir(), "vmsan-cluster-"));
    let cluster: Cluster | undefined;
    let network: Network | undefined;
    try {
      network = new Network();
      cluster = new Cluster(dir, network, programs, options);
      cluster.etcd.start();
      cluster.apiServer.start();
      await cluster.answers();
      // They end when their rights have not been written down yet.
      cluster.scheduler.start();
      cluster.controllers.start();
      await cluster.ready();
      return cluster;
    } catch (error) {
      await (cluster?.close() ?? network?.close());
      await rm(dir, { recursive: true, force: true });
      throw error;
    }
  }

  /** Have something ended with the cluster. */
  add(tenant: Tenant): void {
    this.tenants.push(tenant);
  }

  /** Approve what nodes have requested for their servers, as an administrator does. */
  async approveCertificates(): Promise<void> {
    type Requests = { items: { metadata: { name: string }; status: { conditions?: unknown[] } }[] };
    const { items } = await this.json<Requests>(["get", "csr"]);
    const pending = items.filter(({ status }) => status.conditions === undefined);
    const names = pending.map(({ metadata }) => metadata.name);
    if (names.length > 0) await this.ok(["certificate", "approve", ...names]);
  }

  /** Run a program beside the control plane until the cluster ends. */
  startBeside(name: string, argv: readonly string[]): void {
    const program = new Program(name, this.network.hub, argv, join(this.dir, `${name}.log`));
    program.start();
    this.add({ tail: () => program.tail(), close: async () => await program.stop() });
  }

  /** Start agent-sandbox's own controller, as an administrator; its definitions have to be there. */
  startSandboxController(): void {
    const own = [
      `--kubeconfig=${this.admin}`,
      "--leader-elect=false",
      "--extensions",
      "--metrics-bind-address=127.0.0.1:18180",
      "--health-probe-bind-address=127.0.0.1:18181",
    ];
    this.startBeside("sandboxes", [this.programs.sandboxController, ...own]);
  }

  private get all(): Program[] {
    return [this.etcd, this.apiServer, this.scheduler, this.controllers];
  }

  /** Wait until the API server answers. */
  async answers(): Promise<void> {
    const ask = ["get", "--raw", "/readyz"];
    await this.until(
      "the API server is ready",
      async () => (await this.call(ask)).code === 0,
      READY_MS,
    );
  }

  /** Wait until pods can be made, which takes an account that the controller manager makes. */
  async ready(): Promise<void> {
    await this.answers();
    const ask = ["get", "serviceaccount", "default"];
    const made = async (): Promise<boolean> => (await this.call(ask)).code === 0;
    await this.until("there is an account for pods", made, READY_MS);
  }

  /** Wait until something holds. @throws with the ends of all logs */
  async until(what: string, holds: () => Promise<boolean>, ms = 120_000): Promise<void> {
    const end = performance.now() + ms;
    for (;;) {
      if (await holds()) return;
      if (performance.now() > end) {
        const logs = [...this.all, ...this.tenants].map((one) => `---\n${one.tail()}`);
        throw new Error(`not within ${ms / 1000} s: ${what}\n${logs.join("\n")}`);
      }
      await sleep(200);
    }
  }

  /** A token of a ServiceAccount. @param account `NAMESPACE:NAME` */
  async token(account: string): Promise<string> {
    const [namespace = "", name = ""] = account.split(":");
    return (await this.ok(["-n", namespace, "create", "token", name, "--duration=24h"])).trim();
  }

  /** A kubeconfig for somebody, who is known by a certificate or a token. @returns its path */
  kubeconfig(name: string, who: { subject: string } | { token: string }): string {
    let user: object = who;
    if ("subject" in who) {
      const { certFile, keyFile }: Issued = this.authority.issue(name, who.subject);
      user = { "client-certificate": certFile, "client-key": keyFile };
    }
    const path = join(this.dir, `${name}.kubeconfig`);
    writeFileSync(
      path,
      JSON.stringify({
        apiVersion: "v1",
        kind: "Config",
        clusters: [
          {
            name: "test",
            cluster: { server: this.url, "certificate-authority": this.authority.certFile },
          },
        ],
        users: [{ name, user }],
        contexts: [{ name: "test", context: { cluster: "test", user: name } }],
        "current-context": "test",
      }),
      { mode: 0o600 },
    );
    return path;
  }

  /** Run kubectl. */
  async call(args: readonly string[], options: CallOptions = {}): Promise<Ended> {
    const program = this.programs.kubectl[options.version ?? "newest"];
    return await this.inHub([program, `--kubeconfig=${this.admin}`, ...args], options);
  }

  /** Run a program where the control plane is. */
  async inHub(argv: readonly string[], options: CallOptions = {}): Promise<Ended> {
    const [command = "", ...args] = [...Network.inside(this.network.hub), ...argv];
    const child = spawn(command, args, {
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, HOME: this.dir, ...options.env },
    });
    options.onProcess?.(child);
    const stdout: Buffer[] = [];
    let stderr = "";
    child.stdout.on("data", (bytes: Buffer) => stdout.push(bytes));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.stdin.on("error", () => undefined);
    child.stdin.end(options.input ?? "");
    const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? 120_000);
    return await new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code) => {
        clearTimeout(timer);
        resolve({ code, stdout: Buffer.concat(stdout), stderr });
      });
    });
  }

  /** Run kubectl, which must succeed. @returns its output as text */
  async ok(args: readonly string[], options: CallOptions = {}): Promise<string> {
    const { code, stdout, stderr } = await this.call(args, options);
    if (code === 0) return stdout.toString();
    throw new Error(`kubectl ${args.join(" ")}: ${code}\n${stderr}${stdout.toString()}`);
  }

  /** Objects as the API server has them. */
  async json<T>(args: readonly string[]): Promise<T> {
    return JSON.parse(await this.ok([...args, "-o", "json"])) as T;
  }

  /** Create or change objects. */
  async apply(...objects: object[]): Promise<void> {
    const list = { apiVersion: "v1", kind: "List", items: objects };
    await this.ok(["apply", "-f", "-"], { input: JSON.stringify(list) });
  }

  /** A directory of the test's own below the cluster's. */
  place(name: string): string {
    const path = join(this.dir, name);
    mkdirSync(path, { recursive: true });
    return path;
  }

  /** End all of it and remove what it has kept. */
  async close(): Promise<void> {
    for (const tenant of this.tenants.splice(0)) await tenant.close();
    for (const program of this.all.toReversed()) await program.stop();
    this.network.close();
    await rm(this.dir, { recursive: true, force: true });
  }
}
