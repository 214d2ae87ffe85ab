/**
 * What the daemon does for one VM's network while it runs: name server, proxy, published and
 * opened ports, decision log; and changes of policy, one at a time.
 */
import { messageOf } from "../model/errors.ts";
import type { NetworkPolicy, PublishedPort } from "../model/policy.ts";
import type { VmSecrets } from "../model/secret.ts";
import type { Plan } from "./kernel/address.ts";
import type { Helper, PacketLog } from "./helper.ts";
import { nameAllowed } from "./policy/judge.ts";
import { secretPorts } from "./policy/secrets.ts";
import { DecisionLog, type Decision } from "./log.ts";
import { NameServer } from "./names/name-server.ts";
import { NameBook } from "./names/names.ts";
import { Proxy } from "./proxy/proxy.ts";
import { Broker } from "./secrets/broker.ts";
import { openHostPort, publishAll, type GuestSide, type Listener } from "./publish.ts";
import { proxyPort } from "./kernel/rule-input.ts";
import { addNames, logGroup, ruleset } from "./kernel/rules.ts";
import type { NetworkDecision } from "./types.ts";
import { linkName, type PrivateLink } from "./private/links.ts";
import { peerNames, type Peer } from "./private/names.ts";
import { ask, type NameServer as Upstream } from "./names/upstream.ts";

/** What a service needs. */
export interface ServiceOptions {
  vmId: string;
  plan: Plan;
  ipv6: boolean;
  helper: Helper;
  /** Path of the helper's program. */
  helperPath: string;
  /** What the guest uses without seeing it; absent: nothing. */
  secrets: VmSecrets | undefined;
  /** Path of the VM's namespace as the helper sees it. */
  netns: string;
  upstreams: readonly Upstream[] | undefined;
  hostAddresses: () => readonly string[];
  /** Ways into private networks, as they are now. */
  links: () => readonly PrivateLink[];
  /** Who is in those networks, this VM included. */
  peers: () => readonly Peer[];
  /** Apply an nftables transaction in the VM's namespace. */
  nft: (transaction: string, signal?: AbortSignal) => Promise<void>;
  /** See {@link GuestSide.arrival}. */
  arrival: GuestSide["arrival"];
  /** Told of each decision. */
  decided: (decision: NetworkDecision) => void;
  warn: (message: string) => void;
}

/** An answer that waits for its addresses to be usable. */
interface Admission {
  name: string;
  addresses: readonly string[];
  ttl: number;
  resolve: (admitted: boolean) => void;
}

/**
 * Seconds that connections to a server of a secret pass the proxy after its name was asked for:
 * clients that keep an address for longer reach the server with the placeholder.
 */
const secretSeconds = 24 * 3600;

/** Milliseconds to reach a port of the guest. */
const guestConnectMs = 5000;

/** The live side of one VM's network. */
export class Service {
  readonly log: DecisionLog;
  private readonly options: ServiceOptions;
  private readonly book = new NameBook();
  /** Addresses of servers that secrets are for. */
  private readonly secretBook = new NameBook();
  private readonly broker: Broker | undefined;
  private readonly names: NameServer;
  private readonly proxy: Proxy;
  private readonly hostPorts = new Map<number, Listener>();
  private packets: PacketLog | undefined;
  private published: Listener | undefined;
  private policy: NetworkPolicy;
  private generation: number;
  private readonly admissions: Admission[] = [];
  private queue: Promise<unknown> = Promise.resolve();
  private closed = false;

  /** @param policy the policy that the kernel enforces, or will when {@link apply} is called */
  constructor(options: ServiceOptions, policy: NetworkPolicy, generation: number) {
    this.options = options;
    this.log = new DecisionLog(options.decided);
    this.policy = policy;
    this.generation = generation;
    const context = {
      policy: () => this.policy,
      hostAddresses: options.hostAddresses,
      log: (decision: Decision) => this.log.add(decision),
    };
    const { secrets, helperPath: helper } = options;
    if (secrets !== undefined) this.broker = new Broker({ secrets, helper, log: context.log });
    this.proxy = new Proxy({
      ...context,
      broker: this.broker,
      leadsTo: (name, address) => this.leadsTo(name, address),
    });
    this.names = new NameServer({
      ...context,
      gateway4: options.plan.gateway4,
      gateway6: options.ipv6 ? options.plan.gateway6 : undefined,
      peers: peerNames(options.peers, options.links),
      ask: (question) => ask(question, options.upstreams),
      admit: (name, addresses, ttl) => this.admit(name, addresses, ttl),
      isSecret: (name) => this.broker?.hasName(name) === true,
    });
  }

  /** Whether a name leads to an address: as the guest was told, or when it is asked for now. */
  private async leadsTo(name: string, address: string): Promise<boolean> {
    if (this.secretBook.leadsTo(name, address)) return true;
    const type = address.includes(":") ? "AAAA" : "A";
    const { answers = [] } = await ask({ name, type }, this.options.upstreams);
    return answers.some((record) => record.type === type && record.data === address);
  }

  /** Run one change after another. */
  private serial<T>(body: () => Promise<T>): Promise<T> {
    const result = this.queue.then(body);
    // A failed change is its caller's; the next one starts all the same.
    this.queue = result.catch(() => undefined);
    return result;
  }

  /** Publish the ports. Throws ERR_VALIDATION_PORT_CONFLICT. */
  async publish(ports: readonly PublishedPort[]): Promise<void> {
    const { helper, netns, plan } = this.options;
    const guest: GuestSide = {
      address: plan.guest4,
      arrival: this.options.arrival,
      connect: (port) => helper.connect(netns, `${plan.guest4}:${port}`, guestConnectMs),
      udp: () => helper.udp(netns, `${plan.gateway4}:0`),
    };
    this.published = await publishAll(ports, guest);
  }

  /** Open the sockets in the VM's namespace, which must have its addresses. */
  async open(): Promise<void> {
    const { helper, netns, plan, ipv6 } = this.options;
    const families = [
      { gateway: plan.gateway4, loopback: "127.0.0.1" },
      ...(ipv6 ? [{ gateway: `[${plan.gateway6}]`, loopback: "[::1]" }] : []),
    ];
    await Promise.all([
      ...families.flatMap(({ gateway, loopback }) => [
        helper.udp(netns, `${gateway}:53`).then((socket) => this.names.serveUdp(socket)),
        helper.listen(netns, `${gateway}:53`).then((server) => this.names.serveTcp(server)),
        helper
          .listen(netns, `${loopback}:${proxyPort}`, true)
          .then((server) => this.proxy.serve(server)),
      ]),
      this.logPackets(),
      this.openHostPorts(this.policy.allowHostPorts),
    ]);
    // Closed while the sockets were on their way.
    if (this.closed) this.close();
  }

  /** Read what the rules log. */
  private async logPackets(): Promise<void> {
    const { helper, vmId, netns } = this.options;
    this.packets = helper.log(vmId, netns, logGroup);
    await this.packets.begun;
  }

  /** Listen at the gateway for opened host ports that are not listened for yet. */
  private async openHostPorts(ports: readonly number[]): Promise<void> {
    const { helper, netns, plan, ipv6 } = this.options;
    const gateways = [plan.gateway4, ...(ipv6 ? [`[${plan.gateway6}]`] : [])];
    for (const port of ports) {
      if (this.hostPorts.has(port)) continue;
      const servers = await Promise.all(
        gateways.map((gateway) => helper.listen(netns, `${gateway}:${port}`)),
      );
      const listeners = servers.map((server) => openHostPort(server, port, () => undefined));
      this.hostPorts.set(port, {
        cut: () => listeners.forEach((one) => one.cut()),
        close: () => listeners.forEach((one) => one.close()),
      });
    }
  }

  /** Stop listening for host ports that are not in the list. */
  private closeHostPorts(keep: readonly number[]): void {
    for (const [port, listener] of this.hostPorts) {
      if (keep.includes(port)) continue;
      listener.close();
      this.hostPorts.delete(port);
    }
  }

  /**
   * Addresses of an allowed name: into the kernel's set before the guest learns them. Answers
   * that wait for the same turn share one transaction, so that a guest that asks for many names
   * does not make the host launch as many programs.
   */
  private admit(name: string, addresses: readonly string[], ttl: number): Promise<boolean> {
    if (this.policy.mode === "allow-all" && this.broker?.hasName(name) !== true) {
      return Promise.resolve(true);
    }
    return new Promise((resolve) => {
      this.admissions.push({ name, addresses, ttl, resolve });
      if (this.admissions.length > 1) return;
      // Failures are answered to each admission; there is nothing left to wait for here.
      void this.serial(() => this.admitAll());
    });
  }

  /** Put the addresses of all waiting answers into the kernel's set. */
  private async admitAll(): Promise<void> {
    const waiting = this.admissions.splice(0);
    const good = waiting.filter(({ name }) => !this.closed && nameAllowed(this.policy, name));
    const due = good.flatMap(({ name, addresses, ttl }) => this.book.learn(name, addresses, ttl));
    const dueSecrets = good
      .filter(({ name }) => this.broker?.hasName(name) === true)
      .flatMap(({ name, addresses }) => this.secretBook.learn(name, addresses, secretSeconds));
    let admitted = true;
    try {
      const text = addNames(due, "names") + addNames(dueSecrets, "secrets");
      if (text !== "") await this.options.nft(text);
    } catch (error) {
      admitted = false;
      this.book.unlearn(due);
      this.secretBook.unlearn(dueSecrets);
      this.options.warn(`${this.options.vmId}: addresses were not admitted: ${messageOf(error)}`);
    }
    for (const one of waiting) one.resolve(admitted && good.includes(one));
  }

  /** The ruleset for a policy as things are now. */
  private rules(policy: NetworkPolicy, generation: number): string {
    const { plan, ipv6, hostAddresses, secrets } = this.options;
    const { names, held } = this.book.under(policy, hostAddresses());
    return ruleset({
      policy,
      plan,
      generation,
      ipv6,
      hostAddresses: hostAddresses(),
      names,
      heldNames: held,
      links: this.options.links().map((link) => ({ ...link, name: linkName(link) })),
      ...(secrets !== undefined && {
        secrets: { ports: secretPorts(secrets.rules), addresses: this.secretBook.current() },
      }),
    });
  }

  /** Put the present policy's rules into the kernel. */
  async apply(signal?: AbortSignal): Promise<void> {
    await this.serial(() => this.options.nft(this.rules(this.policy, this.generation), signal));
  }

  /**
   * Change the policy. Before the kernel's one transaction everything follows the old policy;
   * after it, what only the old one allowed is cut.
   * @param commit called around the transaction: stores what is being done, and that it is done
   */
  update(
    policy: NetworkPolicy,
    generation: number,
    commit: { before: () => Promise<void>; after: () => Promise<void>; undo: () => Promise<void> },
  ): Promise<void> {
    return this.serial(async () => {
      try {
        await commit.before();
        await this.openHostPorts(policy.allowHostPorts);
        await this.options.nft(this.rules(policy, generation));
      } catch (error) {
        this.closeHostPorts(this.policy.allowHostPorts);
        await commit.undo();
        throw error;
      }
      this.policy = policy;
      this.generation = generation;
      this.proxy.recheck();
      this.closeHostPorts(policy.allowHostPorts);
      await commit.after();
    });
  }

  /** The helper was started anew: read the packet log again. */
  async relog(): Promise<void> {
    if (!this.closed) await this.logPackets();
  }

  /** End what passes between guest and host: the guest is of another time, and knows nothing of it. */
  cut(): void {
    this.published?.cut();
    this.proxy.cut();
    for (const listener of this.hostPorts.values()) listener.cut();
  }

  /** Stop serving; the kernel's rules stay. */
  close(): void {
    this.closed = true;
    this.published?.close();
    this.published = undefined;
    this.names.close();
    this.proxy.close();
    this.closeHostPorts([]);
    this.log.close();
    this.packets?.stop();
    this.packets = undefined;
  }
}
