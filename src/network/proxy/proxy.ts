/**
 * The transparent proxy for TCP 80 and 443 to addresses of allowed names: reads which name the
 * guest asks the server for and passes bytes on unchanged only when the policy allows that name.
 * Nothing is decrypted, but for names that the VM's secrets are for: those connections are the
 * broker's (../secrets/), whatever the policy. What else comes to their addresses under a policy
 * that does not look at names passes as it is.
 */
import { connect, type Server, type Socket } from "node:net";
import type { NetworkPolicy } from "../../model/policy.ts";
import type { SecretDomain } from "../../model/secret.ts";
import type { Broker } from "../secrets/broker.ts";
import { maxHead, readHead } from "./head.ts";
import { HttpGate } from "./http-gate.ts";
import { addressRefused, nameAllowed, normalName, portAllowed } from "../policy/judge.ts";
import type { Decision } from "../log.ts";
import { readHello, refusalAlert } from "./tls.ts";

/** What the proxy works with; one for each VM. */
export interface ProxyContext {
  policy: () => NetworkPolicy;
  hostAddresses: () => readonly string[];
  log: (decision: Decision) => void;
  /** Puts the VM's secrets in, when it has any. */
  broker?: Broker | undefined;
  /** Whether a name leads to an address; asked for secrets that go unencrypted. */
  leadsTo?: (name: string, address: string) => Promise<boolean>;
  /** Where a guest's connection goes; default: the address and port that it was taken at. */
  target?: (guest: Socket) => { address: string; port: number };
}

/** Milliseconds a guest has to say whom it wants. */
const helloMs = 10_000;

/**
 * Milliseconds after which one that says nothing may wait for the server to speak first. Emulated
 * guests take seconds to read their authorities between the connection and the hello.
 */
const silentMs = 30_000;

/** Milliseconds for the connection to the server. */
const connectMs = 15_000;

/** Most connections of one guest. */
const maxConnections = 1024;

/** Longest head of an answer to a request for an upgrade, with interim ones, in bytes. */
const maxAnswer = 65_536;

/** A connection being passed on. */
interface Link {
  guest: Socket;
  address: string;
  port: number;
  /** Names that were asked for on it. */
  names: Set<string>;
  outside?: Socket;
  /** Ends it when it is the broker's. */
  close?: () => void;
}

/** Refuses a connection. @param last what the guest is sent before the end */
type Refuse = (rule: string, name?: string, last?: Buffer) => void;

/** End a connection so that the other side notices an error, not a proper end. */
function cut(socket: Socket | undefined): void {
  if (socket !== undefined && !socket.destroyed) socket.resetAndDestroy();
}

/** One VM's proxy. */
export class Proxy {
  private readonly context: ProxyContext;
  private readonly servers: Server[] = [];
  private readonly links = new Set<Link>();

  /** @param context what connections are judged with */
  constructor(context: ProxyContext) {
    this.context = context;
  }

  /** Take connections from a transparent listening socket. */
  serve(server: Server): void {
    this.servers.push(server);
    server.unref();
    server.on("connection", (socket) => this.take(socket));
  }

  /** The rule that closes an address and port, whatever name is asked for; undefined: none. */
  private targetRefused(address: string, port: number): string | undefined {
    const policy = this.context.policy();
    if (!portAllowed(policy, port)) return "port";
    return addressRefused(policy, this.context.hostAddresses(), address);
  }

  /** The policy changed: cut what it no longer allows. */
  recheck(): void {
    for (const link of this.links) {
      const policy = this.context.policy();
      const proxied = this.context.broker === undefined ? ["custom"] : ["custom", "allow-all"];
      const kept =
        [...link.names].every((name) => nameAllowed(policy, name)) &&
        proxied.includes(policy.mode) &&
        this.targetRefused(link.address, link.port) === undefined;
      if (!kept) this.end(link);
    }
  }

  /** Cut all connections. */
  cut(): void {
    for (const link of this.links) this.end(link);
  }

  /** Stop, cutting all connections. */
  close(): void {
    for (const server of this.servers) server.close();
    this.servers.length = 0;
    this.cut();
  }

  /** Cut both ends. */
  private end(link: Link): void {
    if (link.close === undefined) cut(link.guest);
    else link.close();
    cut(link.outside);
    this.links.delete(link);
  }

  /** A new connection; its local address is the server that the guest wanted. */
  private take(guest: Socket): void {
    const { address, port } = this.context.target?.(guest) ?? {
      address: guest.localAddress ?? "",
      port: guest.localPort ?? 0,
    };
    const link: Link = { guest, address, port, names: new Set() };
    const refuse: Refuse = (rule, name, last) => {
      const named = name === undefined ? {} : { name };
      this.context.log({ verdict: "denied", protocol: "tcp", address, port, rule, ...named });
      this.links.delete(link);
      cut(link.outside);
      if (last === undefined || guest.destroyed) cut(guest);
      else guest.end(last, () => guest.destroySoon());
    };
    // Either end may go away at any time; "close" tidies up.
    guest.on("error", () => undefined);
    guest.on("close", () => {
      link.outside?.destroy();
      this.links.delete(link);
    });
    if (this.links.size >= maxConnections) {
      refuse("too-many-connections");
      return;
    }
    this.links.add(link);
    const refusedBy = this.targetRefused(address, port);
    if (refusedBy !== undefined) refuse(refusedBy);
    else if (port === 443) this.tls(link, refuse);
    else if (port === 80) this.http(link, refuse);
    else if (this.context.broker === undefined) refuse("protocol");
    else this.either(link, refuse);
  }

  /** Whether names decide what may pass on a port: else those that are not the broker's just pass. */
  private isStrict({ port }: Link): boolean {
    return this.context.policy().mode === "custom" && (port === 443 || port === 80);
  }

  /** A port that secrets are sent to and that has no protocol of its own: the first byte tells. */
  private either(link: Link, refuse: Refuse): void {
    const { guest } = link;
    const timer = setTimeout(() => pass(), silentMs);
    const pass = (): void => {
      guest.off("data", read);
      this.pass(link, []);
    };
    const read = (chunk: Buffer): void => {
      clearTimeout(timer);
      guest.off("data", read);
      guest.unshift(chunk);
      if (chunk[0] === 22) this.tls(link, refuse);
      else this.http(link, refuse);
    };
    guest.on("close", () => clearTimeout(timer));
    guest.on("data", read);
  }

  /** Hand a connection to the broker. @param held what the guest has sent so far */
  private broker(link: Link, broker: Broker, to: SecretDomain, held: Buffer): void {
    const { guest } = link;
    link.names.add(to.host);
    guest.pause();
    guest.unshift(held);
    link.close = broker.take(guest, to, link.address);
  }

  /** Pass everything on as it is. @param held what the guest has sent so far */
  private pass(link: Link, held: readonly Buffer[], name?: string): void {
    const { guest } = link;
    guest.pause();
    const outside = this.open(link, name, held);
    guest.pipe(outside);
    outside.pipe(guest);
  }

  /** Open the way out and pass `first` on. */
  private open(link: Link, name: string | undefined, first: readonly Buffer[]): Socket {
    const { address, port } = link;
    const rule = this.context.policy().mode === "custom" ? "allowed-domain" : "allow-all";
    const named = name === undefined ? {} : { name };
    this.context.log({ verdict: "allowed", protocol: "tcp", ...named, address, port, rule });
    const outside = connect({ host: address, port, allowHalfOpen: true });
    link.outside = outside;
    const timer = setTimeout(() => cut(outside), connectMs);
    outside.on("connect", () => clearTimeout(timer));
    outside.setNoDelay(true);
    outside.on("error", () => cut(link.guest));
    outside.on("close", (failed) => {
      clearTimeout(timer);
      if (failed) cut(link.guest);
      else link.guest.destroySoon();
    });
    for (const piece of first) outside.write(piece);
    return outside;
  }

  /** TLS: the name in the ClientHello decides; everything after it passes. */
  private tls(link: Link, refuse: Refuse): void {
    const { guest, port } = link;
    let held = Buffer.alloc(0);
    const strict = this.isStrict(link);
    const timer = setTimeout(
      () => {
        guest.off("data", read);
        if (strict) refuse("no-hello");
        else this.pass(link, [held]);
      },
      strict ? helloMs : silentMs,
    );
    guest.on("close", () => clearTimeout(timer));
    guest.on("end", () => {
      if (link.outside === undefined && link.close === undefined) cut(guest);
    });
    const read = (chunk: Buffer): void => {
      held = Buffer.concat([held, chunk]);
      const hello = readHello(held);
      if (hello.kind === "more") return;
      guest.off("data", read);
      clearTimeout(timer);
      if (hello.kind === "refused") {
        if (strict)
          refuse(hello.why, undefined, hello.why === "not-tls" ? undefined : refusalAlert);
        else this.pass(link, [held]);
        return;
      }
      const name = normalName(hello.name);
      const { broker } = this.context;
      if (!nameAllowed(this.context.policy(), name) && (strict || broker?.hasName(name) === true)) {
        refuse("server-name", name, refusalAlert);
        return;
      }
      const to: SecretDomain = { scheme: "https", host: name, port };
      if (broker?.serves(to) === true) this.broker(link, broker, to, held);
      else {
        if (strict) link.names.add(name);
        this.pass(link, [held], name);
      }
    };
    guest.on("data", read);
  }

  /** HTTP: whether the first request is the broker's, when it may be; else every one is checked. */
  private http(link: Link, refuse: Refuse): void {
    const { broker } = this.context;
    if (broker?.schemesOn(link.port).has("http") !== true) {
      if (this.isStrict(link)) this.gate(link, refuse);
      else this.pass(link, []);
      return;
    }
    const { guest } = link;
    let held = Buffer.alloc(0);
    const others = (): void => {
      guest.off("data", read);
      clearTimeout(timer);
      if (!this.isStrict(link)) this.pass(link, [held]);
      else {
        guest.unshift(held);
        this.gate(link, refuse);
      }
    };
    const timer = setTimeout(others, silentMs);
    guest.on("close", () => clearTimeout(timer));
    const read = (chunk: Buffer): void => {
      held = Buffer.concat([held, chunk]);
      const end = held.indexOf("\r\n\r\n");
      if (end < 0) {
        if (held.length > maxHead) others();
        return;
      }
      const head = readHead(held.subarray(0, end).toString("latin1"));
      const host = normalName(head?.host ?? "");
      const to: SecretDomain = { scheme: "http", host, port: link.port };
      if (!broker.serves(to)) {
        others();
        return;
      }
      guest.off("data", read);
      clearTimeout(timer);
      guest.pause();
      void this.unencrypted(link, broker, to, held, refuse);
    };
    guest.on("data", read);
  }

  /** Unencrypted, nothing but the address says who is asked. */
  private async unencrypted(
    link: Link,
    broker: Broker,
    to: SecretDomain,
    held: Buffer,
    refuse: Refuse,
  ): Promise<void> {
    const { policy, leadsTo } = this.context;
    const leads = (await leadsTo?.(to.host, link.address).catch(() => false)) ?? false;
    if (link.guest.destroyed) return;
    if (!nameAllowed(policy(), to.host) || !leads) {
      refuse("http-host", to.host, refusalPage("host", to.host));
    } else this.broker(link, broker, to, held);
  }

  /** HTTP: every request's host is checked. */
  private gate(link: Link, refuse: Refuse): void {
    const { guest } = link;
    const gate = new HttpGate((host) => nameAllowed(this.context.policy(), host));
    const timer = setTimeout(() => refuse("no-request"), helloMs);
    guest.on("close", () => clearTimeout(timer));
    const handle = (step: ReturnType<HttpGate["push"]>): void => {
      for (const host of step.hosts) link.names.add(normalName(host));
      let ready = true;
      if (step.forward.length > 0) {
        clearTimeout(timer);
        if (link.outside === undefined) {
          const outside = this.open(link, step.hosts[0] ?? "", step.forward);
          this.answers(link, outside, gate, handle);
        } else {
          for (const piece of step.forward) ready = link.outside.write(piece);
        }
      }
      if (step.refused !== undefined) {
        const { why, host } = step.refused;
        guest.pause();
        // Once an answer may be under way a page of ours would be mixed into it.
        const page = link.outside === undefined ? refusalPage(why, host) : undefined;
        refuse(why === "host" ? "http-host" : `http-${why}`, host, page);
        return;
      }
      if (gate.waiting || !ready) {
        guest.pause();
        if (!ready) link.outside?.once("drain", () => !gate.waiting && guest.resume());
      }
    };
    guest.on("data", (chunk: Buffer) => handle(gate.push(chunk)));
    guest.on("end", () => (link.outside === undefined ? cut(guest) : link.outside.end()));
  }

  /** The server's way back; its answer to an upgrade decides whether the rest is a tunnel. */
  private answers(
    link: Link,
    outside: Socket,
    gate: HttpGate,
    handle: (step: ReturnType<HttpGate["push"]>) => void,
  ): void {
    let head = "";
    outside.on("data", (chunk: Buffer) => {
      if (gate.waiting) {
        head = (head + chunk.toString("latin1")).slice(0, maxAnswer);
        // 100 Continue and other interim answers are not the answer.
        for (let end; /^HTTP\/1\.[01] 1(?!01)\d\d/.test(head); head = head.slice(end + 4)) {
          end = head.indexOf("\r\n\r\n");
          if (end < 0) break;
        }
        const answer = /^HTTP\/1\.[01] (\d{3})[^]*?\r\n\r\n/.exec(head);
        if (answer !== null) {
          const protocols = answer[0].matchAll(/^upgrade:[ \t]*(.*?)[ \t]*$/gim);
          const protocol = [...protocols].map((match) => match[1]).join();
          handle(gate.upgraded(Number(answer[1]), protocol));
          if (link.guest.destroyed) return;
          link.guest.resume();
        } else if (head.length === maxAnswer) {
          cut(outside);
          return;
        }
      }
      if (!link.guest.write(chunk)) {
        outside.pause();
        link.guest.once("drain", () => outside.resume());
      }
    });
    outside.on("end", () => link.guest.end());
  }
}

/** What a browser or curl in the guest is shown. */
function refusalPage(why: string, host: string | undefined): Buffer {
  const text =
    why === "host"
      ? `vmsan: this VM's network policy does not allow ${host}.\n`
      : "vmsan: this request is not plain HTTP/1.1 and was refused.\n";
  return Buffer.from(
    `HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: ${text.length}\r\nConnection: close\r\n\r\n${text}`,
  );
}
