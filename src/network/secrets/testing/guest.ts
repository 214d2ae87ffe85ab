/** A guest's way through the proxy to servers on this machine's loopback, for tests. */
import { createServer as createHttpServer, type RequestListener, type Server } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import { connect, createServer, type AddressInfo, type Server as NetServer } from "node:net";
import { once } from "node:events";
import { connect as tlsConnect, type TLSSocket } from "node:tls";
import type { Duplex } from "node:stream";
import type { NetworkPolicy } from "../../../model/policy.ts";
import type { SecretRule, VmSecrets } from "../../../model/secret.ts";
import { networkHelperBinary } from "../../../util/package.ts";
import type { Decision } from "../../log.ts";
import { parsePolicy } from "../../policy/parse.ts";
import { Proxy } from "../../proxy/proxy.ts";
import { makeAuthority, issue } from "../authority.ts";
import { Broker } from "../broker.ts";
import { newPlaceholder } from "../placeholder.ts";

/** Names that lead to this machine in tests. */
const local = "127.0.0.1";

/** An authority that servers in tests have their certificates from, and which the host trusts. */
const world = makeAuthority(networkHelperBinary(), "the world", [
  {
    name: "X",
    places: [],
    domains: ["test", "example"].map((host) => ({ scheme: "https", host, port: 443 })),
  },
]);

/** A server on loopback. */
export interface Peer {
  port: number;
  server: Server;
  close: () => Promise<void>;
}

/** Start a server; with a name it speaks TLS and has a certificate for that. */
export async function serve(listener: RequestListener, name?: string): Promise<Peer> {
  let server: Server;
  if (name === undefined) server = createHttpServer(listener);
  else {
    const authority = await world;
    const { certificate, key } = await issue(networkHelperBinary(), authority, name);
    server = createHttpsServer({ cert: certificate, key }, listener);
  }
  server.listen(0, local);
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    server,
    close: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

/** What a guest has, and where its connections lead. */
export interface GuestOptions {
  secrets: (SecretRule & { value: string })[];
  policy?: NetworkPolicy;
  leadsTo?: (name: string) => boolean;
}

/** A guest on loopback behind the real proxy. */
export interface Guest {
  secrets: VmSecrets;
  /** What its environment has, by name of the secret. */
  placeholders: Record<string, string>;
  decisions: Decision[];
  /** A plain connection that its proxy takes for one to that port. */
  connect: (port: number) => Promise<Duplex>;
  /** The same with TLS as a guest that trusts its own authority and no other. */
  secure: (port: number, name: string, alpn?: string[]) => Promise<TLSSocket>;
  close: () => void;
}

/** Make a guest with secrets. */
export async function guestWith(options: GuestOptions): Promise<Guest> {
  const helper = networkHelperBinary();
  const rules = options.secrets.map(({ name, domains, places }) => ({
    name,
    domains,
    places,
    placeholder: newPlaceholder(),
  }));
  const values = Object.fromEntries(options.secrets.map(({ name, value }) => [name, value]));
  const authority = await makeAuthority(helper, "vm-00000001", rules);
  const trusted = (await world).certificate;
  const secrets: VmSecrets = { rules, material: { values, authority, trusted } };
  const decisions: Decision[] = [];
  const log = (decision: Decision): void => void decisions.push(decision);
  const policy = options.policy ?? { ...parsePolicy({}), allowedCidrs: [`${local}/32`] };
  // Each connection is announced before it is made: they are taken in that order.
  const targets: number[] = [];
  const proxy = new Proxy({
    policy: () => policy,
    hostAddresses: () => [],
    log,
    broker: new Broker({ secrets, helper, log }),
    leadsTo: async (name) => await Promise.resolve(options.leadsTo?.(name) ?? true),
    target: () => ({ address: local, port: targets.shift() ?? 0 }),
  });
  const front: NetServer = createServer();
  front.listen(0, local);
  await once(front, "listening");
  const { port: entrance } = front.address() as AddressInfo;
  proxy.serve(front);
  const open = async (port: number): Promise<ReturnType<typeof connect>> => {
    targets.push(port);
    const socket = connect(entrance, local);
    await once(socket, "connect");
    return socket;
  };
  return {
    secrets,
    placeholders: Object.fromEntries(rules.map(({ name, placeholder }) => [name, placeholder])),
    decisions,
    connect: open,
    secure: async (port, name, alpn) => {
      const socket = tlsConnect({
        socket: await open(port),
        servername: name,
        ca: authority.certificate,
        ...(alpn === undefined ? {} : { ALPNProtocols: alpn }),
      });
      await once(socket, "secureConnect");
      return socket;
    },
    close: () => proxy.close(),
  };
}

/** Everything that a connection gives until its end, or until a text has come. */
export async function readAll(socket: Duplex, until?: string): Promise<string> {
  let text = "";
  for await (const chunk of socket) {
    text += (chunk as Buffer).toString("latin1");
    if (until !== undefined && text.includes(until)) break;
  }
  return text;
}
