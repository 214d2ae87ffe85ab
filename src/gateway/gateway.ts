/**
 * gateway/: one process that programs on other machines talk to, on the SDK's client and nothing below
 * it. Takes HTTP over TCP in several protocols (a folder each: native/, ports/ …), shared below them:
 * access/ (keys, limits, audit) and http/ (listening, hosts). It needs no root and may die or be
 * replaced at any moment: VMs belong to the daemon.
 *
 * gateway.ts: the composition.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { ClusterOptions } from "../client/vmsan.ts";
import { Vmsan } from "../client/vmsan.ts";
import { isLoopback } from "../util/hosts/loopback.ts";
import { fileLog } from "../util/log.ts";
import type { Log } from "../util/log.ts";
import { vmsanDir } from "../util/paths.ts";
import { invalid } from "../util/units.ts";
import { Gate } from "./access/gate.ts";
import { Keys } from "./access/keys.ts";
import { loadTokens } from "./access/tokens.ts";
import { Hosts } from "./http/hosts.ts";
import { checkExposure, parseListen } from "./http/listen.ts";
import type { TlsFiles } from "./http/listen.ts";
import { listen } from "./http/server.ts";
import type { ListeningGateway } from "./http/server.ts";
import type { GatewayDriver } from "./native/bodies.ts";
import type { ControlContext } from "./e2b/control/context.ts";
import { Waker } from "./e2b/control/lifecycle.ts";
import { Sweeper } from "./e2b/control/sweeper.ts";
import { E2bStore } from "./e2b/control/store.ts";
import { Uploads } from "./e2b/control/uploads.ts";
import { e2bFace } from "./e2b/face.ts";
import { GuestUsers } from "./e2b/envd/users.ts";
import { VolumePlaces } from "./e2b/volumes/places.ts";
import { sandboxPorts } from "./e2b/ports.ts";
import { DockerServer } from "./docker/serve.ts";
import { loadPolicy } from "../mcp/policy.ts";
import { mcpFace } from "./mcp/face.ts";
import { RequestTotals, metricsFace } from "./metrics/face.ts";
import { nativeFace } from "./native/face.ts";
import { portsFace } from "./ports/face.ts";
import { forgetServing, noteServing } from "./serving.ts";
import { uiFace } from "./ui/face.ts";

/** Where Docker's Engine API is spoken. */
export interface DockerOptions {
  /** `unix:///PATH`, `tcp://ADDRESS:PORT`; default a socket in VMSAN_DIR. */
  listen?: string;
  /** File of certificates of the authorities that have signed the clients' own, PEM: for TCP with TLS. */
  clientCa?: string;
}

/** A gateway that serves. */
export interface Gateway extends ListeningGateway {
  /** Where /metrics is served without a key, if anywhere. */
  readonly metricsUrl?: string;
  /** Value of DOCKER_HOST, where that is spoken. */
  readonly docker?: string;
}

/** How a gateway serves. */
export interface GatewayOptions {
  /** VMSAN_DIR; default from the environment. */
  dir?: string;
  /** VMs are pods of this cluster; images of Docker's clients are this host's. */
  cluster?: ClusterOptions;
  /** `PORT`, `ADDRESS:PORT`; default 127.0.0.1:7300. */
  listen?: string;
  tls?: TlsFiles;
  /** Something in front speaks TLS: a public address is allowed without. */
  behindProxy?: boolean;
  /**
   * Names that it answers for; ports of VMs are `PORT-VM.` before them. Behind the first, clients are told
   * of a `:PORT` at which it is reached from outside.
   */
  domains?: readonly string[];
  /** Another address, of this machine alone, that serves /metrics without a key: `PORT`, `ADDRESS:PORT`. */
  metricsListen?: string;
  /** Speak Docker's Engine API too. */
  docker?: DockerOptions;
  /** Path of what agents may ask for at /mcp; see docs/mcp.md. */
  mcpPolicy?: string;
  /** Driver of VMs whose maker names none; default `auto`. `fake` runs commands on the host: for tests. */
  driver?: GatewayDriver;
}

/** The default address. */
const DEFAULT_LISTEN = "127.0.0.1:7300";

/**
 * Serve until closed.
 * @throws ERR_VALIDATION_FLAGS for an unsafe address, ERR_GATEWAY_LISTEN, ERR_GATEWAY_TLS
 */
export async function startGateway(options: GatewayOptions = {}): Promise<Gateway> {
  const begun: (() => void | Promise<void>)[] = [];
  try {
    return await begin(options, begun);
  } catch (error) {
    // What goes on would keep the process, and the daemon with it.
    for (const end of begun.toReversed()) await end();
    throw error;
  }
}

/** @param begun what ends each thing that goes on by itself */
async function begin(
  options: GatewayOptions,
  begun: (() => void | Promise<void>)[],
): Promise<Gateway> {
  const address = parseListen(options.listen ?? DEFAULT_LISTEN);
  const { tls } = options;
  checkExposure(address, options);
  // Named, so that a gateway never serves another gateway's VMs.
  const { cluster } = options;
  const vmsan = new Vmsan({
    dir: options.dir ?? vmsanDir(),
    ...(cluster === undefined ? {} : { cluster, images: "host" }),
  });
  const directory = vmsan.daemon.layout.gateway;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const keys = new Keys(directory);
  const gate = new Gate(
    keys,
    await loadTokens(directory, keys),
    fileLog(join(directory, "audit.log")),
  );
  const { driver = "auto" } = options;
  const hosts = new Hosts(options.domains ?? []);
  const log = fileLog(join(directory, "gateway.log"));
  const places = new VolumePlaces(vmsan, driver, log);
  const waker = new Waker(places);
  const sweeper = new Sweeper(vmsan, log);
  begun.push(
    () => gate.close(),
    () => sweeper.close(),
    async () => await places.close(),
  );
  const context: ControlContext = {
    vmsan,
    gate,
    store: new E2bStore(directory),
    uploads: new Uploads(directory, gate.tokens),
    places,
    users: new GuestUsers(),
    driver,
    domain: options.domains?.[0] ?? null,
    behindProxy: options.behindProxy === true,
  };
  const mcp = mcpFace({ ...context, policy: await loadPolicy(options.mcpPolicy), log }, hosts);
  begun.push(async () => await mcp.close());
  const totals = new RequestTotals();
  const metrics = await listenForMetrics(options.metricsListen, vmsan, totals, log);
  begun.push(async () => await metrics?.close());
  const gateway = await listen({
    address,
    answered: totals.note,
    ...(tls === undefined ? {} : { tls }),
    hosts,
    faces: [
      // Before E2B's, whose sandboxes have a /metrics too: this one names none.
      metricsFace({ vmsan, totals, hosts, gate }),
      mcp.face,
      e2bFace(context, hosts, waker),
      portsFace(vmsan, gate, hosts, sandboxPorts(waker)),
      nativeFace(vmsan, gate, driver),
      uiFace(),
    ],
    log,
  });
  // Clients would take E2B's own domain, and ask its hosts with this gateway's tokens; all of ours are on this machine.
  if (isLoopback(address.host) && options.behindProxy !== true)
    context.domain ??= `localhost:${gateway.port}`;
  begun.push(async () => await gateway.close());
  const docker =
    options.docker === undefined
      ? undefined
      : await DockerServer.start({
          vmsan,
          driver,
          log,
          ...options.docker,
          ...(tls === undefined ? {} : { tls }),
        });
  await noteServing(directory, gateway.url);
  return {
    ...gateway,
    ...(metrics === undefined ? {} : { metricsUrl: `${metrics.url}/metrics` }),
    ...(docker === undefined ? {} : { docker: docker.host }),
    close: async () => {
      await forgetServing(directory);
      sweeper.close();
      gate.close();
      await Promise.all([mcp.close(), places.close()]);
      await Promise.all([gateway.close(), metrics?.close(), docker?.close()]);
    },
  };
}

/** Serve /metrics alone, without a key, where only this machine asks. @throws ERR_VALIDATION_FLAGS */
async function listenForMetrics(
  text: string | undefined,
  vmsan: Vmsan,
  totals: RequestTotals,
  log: Log,
): Promise<ListeningGateway | undefined> {
  if (text === undefined) return undefined;
  const address = parseListen(text);
  if (!isLoopback(address.host)) {
    throw invalid(
      "FLAGS",
      "address for metrics",
      text,
      "Others can reach it, and it asks for no key.",
      "Give an address of this machine alone (127.0.0.1:9300), or have Prometheus send an admin key to /metrics.",
    );
  }
  const hosts = new Hosts([]);
  return await listen({
    address,
    hosts,
    faces: [metricsFace({ vmsan, totals, hosts })],
    log,
  });
}
