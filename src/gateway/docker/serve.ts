/** Where the engine listens: a socket of its owner's, or TCP. */
import { mkdir, readFile, rm } from "node:fs/promises";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import type { Vmsan } from "../../client/vmsan.ts";
import { VmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import { isLoopback } from "../../util/hosts/loopback.ts";
import { tryLock } from "../../util/lock.ts";
import type { Lock } from "../../util/lock.ts";
import type { Log } from "../../util/log.ts";
import { dockerSocket } from "../../util/paths.ts";
import { invalid } from "../../util/units.ts";
import { Hosts } from "../http/hosts.ts";
import { parseListen } from "../http/listen.ts";
import type { ListenAddress, TlsFiles } from "../http/listen.ts";
import { listen } from "../http/server.ts";
import type { ListeningGateway } from "../http/server.ts";
import type { GatewayDriver } from "../native/bodies.ts";
import { Engine } from "./engine.ts";
import { dockerFace } from "./face.ts";
import { Reapers } from "./reaper/relay.ts";

/** What an engine's server is made of. */
export interface DockerParts {
  vmsan: Vmsan;
  driver: GatewayDriver;
  log: Log;
  /** `unix:///PATH`, `tcp://ADDRESS:PORT`. */
  listen?: string;
  /** Path of the authorities of clients' certificates. */
  clientCa?: string;
  tls?: TlsFiles;
}

/** Where to listen. @throws ERR_VALIDATION_FLAGS */
function parseDockerListen(text: string): ListenAddress | { path: string } {
  const path = /^unix:\/\/(\/[^\0]+)$/.exec(text)?.[1];
  if (path !== undefined) return { path };
  const address = /^tcp:\/\/(.+)$/.exec(text)?.[1];
  if (address !== undefined) return parseListen(address);
  throw invalid(
    "FLAGS",
    "address for Docker's API",
    text,
    "It takes unix:///PATH or tcp://ADDRESS:PORT.",
    "For example: --docker unix:///run/user/1000/docker.sock.",
  );
}

/** Whoever reaches the engine may do what its user may: over a network only those with a certificate. */
function checkTcp(address: ListenAddress, { tls, clientCa }: DockerParts): void {
  if (tls !== undefined && clientCa !== undefined) return;
  if (isLoopback(address.host) && clientCa === undefined) return;
  throw invalid(
    "FLAGS",
    "address for Docker's API",
    address.host,
    "Whoever reaches it may do what you may, and others can reach it: it takes clients with certificates alone.",
    "Give --tls-cert, --tls-key and --docker-ca, or listen on a unix socket.",
  );
}

/** Remove a socket that nobody listens on any more. @throws ERR_GATEWAY_LISTEN when somebody does */
async function clearSocket(path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const alive = await new Promise<boolean>((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", (error) =>
      resolve(!["ENOENT", "ECONNREFUSED"].includes(errnoOf(error) ?? "")),
    );
  });
  if (!alive) {
    await rm(path, { force: true });
    return;
  }
  throw new VmsanError({
    code: "ERR_GATEWAY_LISTEN",
    message: `Cannot listen on ${path}`,
    why: "Something listens there already, or it is no socket of yours.",
    fix: "Choose another one: --docker unix:///PATH.",
  });
}

/** An engine that is served. */
export class DockerServer {
  /** Value of DOCKER_HOST. */
  readonly host: string;
  private readonly server: ListeningGateway;
  private readonly engine: Engine;
  private readonly lock: Lock;

  private constructor(server: ListeningGateway, engine: Engine, lock: Lock) {
    this.server = server;
    this.engine = engine;
    this.lock = lock;
    this.host = server.url.replace(/^https?:/, "tcp:");
  }

  /** Take up the containers that there are, and serve. @throws ERR_GATEWAY_LISTEN, ERR_GATEWAY_TLS */
  static async start(parts: DockerParts): Promise<DockerServer> {
    const { vmsan, driver, log, tls } = parts;
    const { layout } = vmsan.daemon;
    const address = parseDockerListen(parts.listen ?? `unix://${dockerSocket(layout.root)}`);
    if (!("path" in address)) checkTcp(address, parts);
    const directory = join(layout.gateway, "docker");
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const lock = tryLock(join(directory, "lock"));
    if (lock === undefined) {
      throw new VmsanError({
        code: "ERR_GATEWAY_LISTEN",
        message: "Another gateway speaks Docker's API for this directory",
        why: `It holds the containers in ${directory}.`,
        fix: "Use that one, or end it first.",
      });
    }
    try {
      const engine = new Engine({
        vmsan,
        directory,
        log,
        driver,
        relay: (made) => new Reapers(made, log),
        ...("path" in address ? { socket: address.path } : {}),
      });
      await engine.open();
      if ("path" in address) await clearSocket(address.path);
      const server = await listen({
        address,
        ...(tls === undefined || "path" in address ? {} : { tls }),
        ...(parts.clientCa === undefined || "path" in address
          ? {}
          : { clientCa: await readCa(parts.clientCa) }),
        hosts: new Hosts([]),
        faces: [dockerFace(engine, log)],
        log,
      });
      return new DockerServer(server, engine, lock);
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  /** Stop serving; containers go on. */
  async close(): Promise<void> {
    await this.server.close();
    await this.engine.close();
    this.lock.release();
  }
}

async function readCa(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    throw new VmsanError(
      {
        code: "ERR_GATEWAY_TLS",
        message: `Cannot read the authorities of clients, ${path}`,
        why: messageOf(error),
        fix: "Give a PEM file that this user can read.",
      },
      error,
    );
  }
}
