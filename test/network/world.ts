/**
 * A small world in network namespaces, for tests of policies: "the host" (the namespace this
 * process was started in), an internet behind it, and stand-ins for guests behind real taps.
 * Must run in namespaces of its own: `unshare --net --mount node …` (see launch.ts).
 */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { createSocket } from "node:dgram";
import { createInterface } from "node:readline";
import dns from "dns-packet";
import type { NetworkPolicy, PublishedPort } from "../../src/model/policy.ts";
import { createNetworkManager } from "../../src/network/network.ts";
import { Realm } from "../../src/network/host/realm.ts";
import type { Peer } from "../../src/network/private/names.ts";
import type { Wanted } from "../../src/network/private/nets.ts";
import type { AttachedNetwork, NetworkManager, NetworkOptions } from "../../src/network/types.ts";

/** Addresses of the internet's hosts, all on one machine. */
const internet4 = [
  "203.0.113.10/32", // a.test
  "203.0.113.20/32", // a CDN: shop.test and tenant.test
  "203.0.113.30/32", // evil.test
  "203.0.113.40/32", // in the allowed CIDR
  "203.0.113.44/32", // in it, but denied
  "203.0.113.50/32", // at the end of alias.test
  "203.0.113.60/32", // db.test
  "8.8.8.8/32",
  "1.1.1.1/32",
  "10.7.7.7/32",
  "10.8.8.8/32",
  "172.16.7.7/32",
  "192.168.7.7/32",
  "100.100.100.200/32",
  "168.63.129.16/32",
  "169.254.169.254/32",
];
const internet6 = ["2001:db8:2::10", "2001:db8:2::30", "2001:db8:2::40", "fd12::7"];

/** What names lead to; looked up by the daemon's upstream. */
export const zone = new Map<string, dns.Answer[]>();

/** Add addresses of a name. */
export function name(host: string, addresses: readonly string[], ttl = 60): void {
  zone.set(
    host,
    addresses.map((data) => ({ type: data.includes(":") ? "AAAA" : "A", name: host, ttl, data })),
  );
}

/** A child process that says when it is ready, one JSON object a line. */
class Tool {
  readonly process: ChildProcess;
  readonly ready: Promise<void>;
  constructor(argv: readonly string[], onLine: (line: Record<string, unknown>) => void = () => {}) {
    const [file = "", ...args] = argv;
    this.process = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
    const { stdout } = this.process;
    if (stdout === null) throw new Error("no output");
    const lines = createInterface({ input: stdout });
    this.ready = new Promise((resolve, reject) => {
      this.process.once("exit", () => reject(new Error(`${argv.join(" ")} ended`)));
      lines.on("line", (line) => {
        const value = JSON.parse(line) as Record<string, unknown>;
        if (value["event"] === "ready") resolve();
        else onLine(value);
      });
    });
    // Someone awaits `ready` or the tool is not one that says so.
    this.ready.catch(() => undefined);
  }
}

/** Run `ip` with a batch. */
function ip(batch: string, netns?: string): void {
  execFileSync("ip", [...(netns === undefined ? [] : ["-n", netns]), "-batch", "-"], {
    input: batch,
  });
}

/** A process that makes attempts somewhere. */
export class Prober {
  readonly tool: Tool;
  private readonly waiting = new Map<number, (result: string) => void>();
  private nextId = 1;
  constructor(argv: readonly string[]) {
    this.tool = new Tool(argv, (line) => {
      this.waiting.get(Number(line["id"]))?.(String(line["result"]));
      this.waiting.delete(Number(line["id"]));
    });
  }

  /** Make one attempt; gives `open …` or `closed: …`. */
  async probe(fields: Record<string, unknown>): Promise<string> {
    const id = this.nextId;
    this.nextId += 1;
    return new Promise((resolve) => {
      this.waiting.set(id, resolve);
      this.tool.process.stdin?.write(`${JSON.stringify({ id, ...fields })}\n`);
    });
  }
}

/** A guest's stand-in: a namespace that has the card, and a process that makes attempts in it. */
export class Guest {
  readonly netns: string;
  readonly network: AttachedNetwork;
  readonly tools: Tool[] = [];
  private prober: Prober | undefined;
  constructor(netns: string, network: AttachedNetwork) {
    this.netns = netns;
    this.network = network;
  }

  /** Make one attempt; gives `open …` or `closed: …`. */
  async probe(fields: Record<string, unknown>): Promise<string> {
    const prober = this.prober;
    if (prober === undefined) throw new Error("the guest is not started");
    return prober.probe(fields);
  }

  /** Connect the card and start the prober. */
  async start(
    nettool: string,
    serve: readonly string[],
    networks: readonly Wanted[] = [],
  ): Promise<void> {
    const { attachment, guest } = this.network;
    ip(`netns add ${this.netns}\n`);
    ip(`tuntap add dev eth0 mode tap\nlink set dev eth0 address ${guest.mac}\n`, this.netns);
    const bridge = new Tool([
      nettool,
      "bridge",
      attachment.netns ?? "",
      attachment.tap ?? "",
      `/run/netns/${this.netns}`,
      "eth0",
    ]);
    this.tools.push(bridge);
    await bridge.ready;
    const v6 =
      guest.ipv6 === undefined
        ? ""
        : `address add ${guest.ipv6} dev eth0 nodad\nroute add ::/0 via ${guest.gateway6} dev eth0\n`;
    ip(
      `link set dev lo up\nlink set dev eth0 mtu ${guest.mtu} up\naddress add ${guest.ipv4} dev eth0\nroute add default via ${guest.gateway4}\n${v6}`,
      this.netns,
    );
    for (const each of networks) this.join(each);
    const inside = ["ip", "netns", "exec", this.netns, nettool];
    if (serve.length > 0) {
      const server = new Tool([...inside, "serve", ...serve]);
      this.tools.push(server);
      await server.ready;
    }
    this.prober = new Prober([...inside, "probe"]);
    this.tools.push(this.prober.tool);
  }

  /** As the agent does: its address in a private network, from which it speaks to the others. */
  join({ address, subnet }: Wanted): void {
    const { gateway4 } = this.network.guest;
    ip(
      `address add ${address}/32 dev eth0\nroute add ${subnet} via ${gateway4} src ${address}\n`,
      this.netns,
    );
  }

  /** End its processes. */
  stop(): void {
    for (const tool of this.tools) tool.process.kill("SIGKILL");
    execFileSync("ip", ["netns", "del", this.netns]);
  }
}

/** The world; make one, {@link World.start} it, and stop it. */
export class World {
  manager: NetworkManager;
  readonly realm: Realm;
  /** Marks of packets that were seen on the host, outside every VM's namespace. */
  readonly seen = new Set<string>();
  /** Who is in which VM's private networks. */
  peers: (vmId: string) => readonly Peer[] = () => [];
  private readonly nettool: string;
  private readonly web: string;
  private readonly bare: boolean;
  private readonly upstreamPort: number;
  private readonly options: NetworkOptions;
  private readonly tools: Tool[] = [];
  private readonly guests: Guest[] = [];
  private readonly upstream = createSocket("udp4");

  constructor(
    paths: {
      nettool: string;
      helper: string;
      dir: string;
      upstreamPort?: number;
      /** Servers answer every request with 101. */
      switching?: boolean;
      /** The internet has no servers but those that are started there. */
      bare?: boolean;
      /** Secrets of VMs. */
      secrets?: NetworkOptions["secrets"];
    },
    realm: Realm = new Realm(),
  ) {
    this.upstreamPort = paths.upstreamPort ?? 5300;
    this.nettool = paths.nettool;
    this.bare = paths.bare === true;
    this.web = paths.switching === true ? "--http101" : "--http";
    this.realm = realm;
    this.options = {
      dir: paths.dir,
      helper: paths.helper,
      upstreams: [`127.0.0.1#${this.upstreamPort}`],
      ipv6: true,
      peers: (vmId) => this.peers(vmId),
      ...(paths.secrets === undefined ? {} : { secrets: paths.secrets }),
      onWarning: (message) => process.stderr.write(`warning: ${message}\n`),
    };
    this.manager = createNetworkManager(this.options, realm);
  }

  /** The daemon ends and another one starts. */
  async restart(): Promise<void> {
    await this.manager.close();
    this.manager = createNetworkManager(this.options, this.realm);
  }

  /** A prober on the internet, or on the host itself. */
  prober(netns?: string): Prober {
    const argv = [this.nettool, "probe"];
    const prober = new Prober(netns === undefined ? argv : ["ip", "netns", "exec", netns, ...argv]);
    this.tools.push(prober.tool);
    return prober;
  }

  /** Make host and internet. */
  async start(): Promise<void> {
    execFileSync("mount", ["-t", "tmpfs", "tmpfs", "/run"]);
    // A new namespace takes this over from the machine.
    execFileSync("sysctl", ["-qw", "net.ipv4.ip_forward=0"]);
    ip("netns add internet\n");
    ip(`link set dev lo up
address add 10.9.0.1/32 dev lo
link add wan0 type veth peer name wan0 netns internet
address add 198.51.100.2/24 dev wan0
address add 2001:db8:1::2/64 dev wan0 nodad
link set dev wan0 up
route add default via 198.51.100.1
route add ::/0 via 2001:db8:1::1
`);
    ip(
      `link set dev lo up
address add 198.51.100.1/24 dev wan0
address add 2001:db8:1::1/64 dev wan0 nodad
link set dev wan0 up
${internet4.map((address) => `address add ${address} dev lo\n`).join("")}${internet6.map((address) => `address add ${address}/128 dev lo nodad\n`).join("")}`,
      "internet",
    );
    if (!this.bare) this.startServers();
    await Promise.all([...this.tools.map((tool) => tool.ready), this.watch([])]);
    this.upstream.on("message", (message, peer) => {
      const query = dns.decode(message);
      const asked = query.questions?.[0];
      const all = zone.get(asked?.name.toLowerCase() ?? "");
      const ends = (all ?? []).flatMap((record) =>
        record.type === "CNAME" ? [record, ...(zone.get(record.data) ?? [])] : [record],
      );
      const answers = ends.filter(
        (record) => record.type === asked?.type || record.type === "CNAME",
      );
      const reply = dns.encode({
        type: "response",
        id: query.id ?? 0,
        flags: dns.RECURSION_DESIRED | dns.RECURSION_AVAILABLE | (all === undefined ? 3 : 0),
        questions: query.questions ?? [],
        answers,
      });
      this.upstream.send(reply, peer.port, peer.address);
    });
    await new Promise<void>((resolve) =>
      this.upstream.bind(this.upstreamPort, "127.0.0.1", resolve),
    );
  }

  /** Servers of every kind, on the internet and on the host. */
  private startServers(): void {
    const outside = ["ip", "netns", "exec", "internet", this.nettool, "serve"];
    this.tools.push(
      new Tool([
        ...outside,
        "--tcp",
        "22,53,853,5432,8443,9000",
        this.web,
        "80",
        "--tls",
        "443",
        "--udp",
        "53,80,123,443,853,5000",
        "--sink",
        "9100",
        "--source",
        "9101",
      ]),
      new Tool([this.nettool, "serve", "--tcp", "22,8000,9000", "--udp", "5000"]),
    );
  }

  /** Note the marks of packets in a place. @param prefix argv that goes there */
  async watch(prefix: readonly string[]): Promise<void> {
    const watch = [...prefix, this.nettool, "watch"];
    const tool = new Tool(watch, (line) => this.seen.add(String(line["mark"])));
    this.tools.push(tool);
    await tool.ready;
  }

  /** A VM's network with a stand-in for its guest. */
  async guest(
    vmId: string,
    policy: NetworkPolicy,
    ports: readonly PublishedPort[] = [],
    serve: readonly string[] = [],
    networks: readonly Wanted[] = [],
  ): Promise<Guest> {
    const { signal } = new AbortController();
    const network = await this.manager.attach(vmId, policy, ports, signal, networks);
    if (network === undefined) throw new Error("no network");
    const guest = new Guest(`guest-${vmId}`, network);
    this.guests.push(guest);
    await guest.start(this.nettool, serve, networks);
    return guest;
  }

  /** End everything; the namespaces go with this process. */
  async stop(): Promise<void> {
    for (const guest of this.guests) guest.stop();
    await this.manager.sweep(new Set());
    await this.manager.close();
    for (const tool of this.tools) tool.process.kill("SIGKILL");
    this.upstream.close();
  }
}
