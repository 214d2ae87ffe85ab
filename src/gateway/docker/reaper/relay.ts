/** The socket that a container mounts for the engine's: made in its guest, and led to a server of its own on this host. */
import { rm } from "node:fs/promises";
import { join, posix } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { listStreams, signalStream } from "../../../agent/commands.ts";
import { makeDirectory, removeFile } from "../../../agent/files.ts";
import { forwardToHost } from "../../../agent/ports.ts";
import type { Forwarding } from "../../../agent/ports.ts";
import { guestErrno } from "../../../agent/transport.ts";
import type { Vm } from "../../../client/vm.ts";
import type { Log } from "../../../util/log.ts";
import { Hosts } from "../../http/hosts.ts";
import { listen } from "../../http/server.ts";
import type { Face, ListeningGateway } from "../../http/server.ts";
import type { EngineRelay } from "../containers/life/sockets.ts";
import type { Engine } from "../engine.ts";
import { dockerFace } from "../face.ts";
import { refuseUpgrade, sendError } from "../http/wire.ts";
import { NOTHING_ELSE, scoped } from "./scope.ts";

/** The engine's face, narrowed. */
function reaperFace(engine: Engine, log: Log): Face {
  const whole = dockerFace(engine, log);
  return {
    name: "docker-reaper",
    claims: () => true,
    handle: async (request, response) => {
      try {
        request.url = await scoped(engine, request);
      } catch (error) {
        request.resume();
        sendError(response, error);
        return;
      }
      await whole.handle(request, response);
    },
    upgrade: async (_request, socket) => {
      await Promise.resolve(refuseUpgrade(socket, 403, { message: NOTHING_ELSE }));
    },
  };
}

/** Label of the streams in a guest that listen on such a socket. */
const LABEL = "vmsan.docker.socket";

/** Most connections of one container: the reaper has one or two, and what runs there must not take all that this process has. */
const MOST = 32;

/** How long a listener of an earlier gateway may take to end, in milliseconds. */
const END_MS = 10_000;

/** End what an earlier gateway listens with: it would take the socket away when it ended later. */
async function endEarlier(vm: Vm): Promise<void> {
  const mine = async (): Promise<string[]> =>
    (await listStreams(vm.transport))
      .filter(({ label, running }) => label === LABEL && running)
      .map(({ id }) => id);
  const until = Date.now() + END_MS;
  for (let ids = await mine(); ids.length > 0 && Date.now() < until; ids = await mine()) {
    // One that has just ended needs no signal.
    for (const id of ids) await signalStream(vm.transport, id, "KILL", true).catch(() => undefined);
    await sleep(20);
  }
}

/** Remove a file of a guest, if there is one. */
async function removeIfThere(vm: Vm, path: string): Promise<void> {
  try {
    await removeFile(vm.transport, path, { user: "root" });
  } catch (error) {
    if (guestErrno(error) !== "ENOENT") throw error;
  }
}

/** The server behind such sockets: one for all containers, there once one of them asks for it. */
export class Reapers implements EngineRelay {
  private readonly engine: Engine;
  private readonly log: Log;
  private readonly path: string;
  private server: Promise<ListeningGateway> | undefined;

  constructor(engine: Engine, log: Log) {
    this.engine = engine;
    this.log = log;
    this.path = join(engine.directory, "reaper.sock");
  }

  private async serve(): Promise<ListeningGateway> {
    // Whoever has the directory is alone: what is there is a killed engine's.
    await rm(this.path, { force: true });
    const faces = [reaperFace(this.engine, this.log)];
    const { path, log } = this;
    return await listen({ address: { path }, hosts: new Hosts([]), faces, log });
  }

  /** Have a guest's programs reach the server by a socket at a path there. */
  async lead(vm: Vm, path: string): Promise<Forwarding> {
    this.server ??= this.serve();
    await this.server.catch((error: unknown) => {
      this.server = undefined;
      throw error;
    });
    await endEarlier(vm);
    await makeDirectory(vm.transport, posix.dirname(path), { parents: true, user: "root" });
    await removeIfThere(vm, path);
    const here = { network: "unix" as const, path: this.path };
    return await forwardToHost(vm.transport, { network: "unix", path }, here, {
      label: LABEL,
      most: MOST,
      onError: (error) => this.log.error(`the socket ${path} of a container`, error),
    });
  }

  /** Stop serving. */
  async close(): Promise<void> {
    const { server } = this;
    this.server = undefined;
    await (await server?.catch(() => undefined))?.close();
  }
}
