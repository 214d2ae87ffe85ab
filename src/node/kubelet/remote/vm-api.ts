/**
 * The daemon's API for one pod's VM, to a client that may run commands in that pod: HTTP/1.1 over a session's input
 * and output. By it vmsan's own client has commands that survive broken connections, files, ports and the console,
 * with no program in the guest to help. What it lets through does nothing that a command in the guest could not do,
 * but for looking at the VM from outside; what is the pod author's (its policy, its end) is not here.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { basename } from "node:path";
import { Duplex, Writable } from "node:stream";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Daemon } from "../../../client/daemon.ts";
import { vmPath } from "../../../client/paths.ts";
import { statusOf } from "../../../http/reply.ts";
import { PATIENCE_HEADER, VERSION_HEADER, patienceOf } from "../../../model/api.ts";
import type { VmView } from "../../../model/api.ts";
import { POD_ANNOTATION, POD_UID_HEADER } from "../../../kube/pod-words.ts";
import { VmsanError, asVmsanError, messageOf } from "../../../model/errors.ts";
import { collect } from "../../../util/flow/collect.ts";
import { joined } from "../../../util/flow/joined.ts";
import { dropUnread } from "../../../util/flow/unread.ts";
import { httpModule } from "../../../util/process/http-modules.ts";
import { packageVersion } from "../../../util/package.ts";
import type { Pod } from "../../../schema/pod.ts";
import type { RunningPod } from "../../pods/running.ts";
import { commandUser, containerOf, isRoot, mustNotBeRoot } from "../../pods/spec/plan.ts";
import { SUCCESS, failureStatus } from "./session.ts";
import type { RemoteSession } from "./session.ts";

/** Most bytes of a request's body: calls of the agent are small. */
const MAX_BODY = 16 << 20;

/** Streams of the agent, to which a connection switches. */
const STREAM = /^\/v1\/streams(?:\/[0-9a-f]{16})?$/;

/** How a request is answered: a value, bytes as they come, or not at all. */
function kindOf(method: string, path: string): "view" | "json" | "stats" | "bytes" | undefined {
  if (/^\/agent\/v1\/[a-z0-9/]+$/.test(path)) return "json";
  if (path === "/ssh" && (method === "GET" || method === "POST")) return "json";
  if (method !== "GET") return undefined;
  if (path === "/console" || path === "/decisions") return "bytes";
  if (path === "") return "view";
  return path === "/stats" ? "stats" : undefined;
}

/** A session's input and output as one connection. */
function connectionOf(session: RemoteSession, stdin: Readable): Duplex {
  let ending: Promise<void> | undefined;
  // A client that has gone cannot be told of the end.
  const end = async (): Promise<void> =>
    await (ending ??= session.end(SUCCESS).catch(() => undefined));
  const writable = new Writable({
    write: (bytes: Buffer, _encoding, done) => {
      session.output(1, bytes).then(() => done(), done);
    },
    final: (done) => void end().then(() => done()),
    // Without it the client would wait for the rest.
    destroy: (error, done) => void end().then(() => done(error)),
  });
  return Duplex.from({ readable: stdin, writable });
}

/** A VM as those see it who may run commands in it: without paths and processes of the host. */
function shown({ pid: _pid, ...view }: VmView): VmView {
  return { ...view, kernel: basename(view.kernel), rootfs: basename(view.rootfs) };
}

/**
 * Commands may be anybody's by this way, root's as well: it is closed where a pod's commands are not root's, but for
 * VMs that were made to be used by it, and for those only where nobody has ruled root out.
 */
async function checkUsers(running: RunningPod): Promise<void> {
  const pod = running.pod as Pod;
  const idle = pod.metadata.annotations?.[POD_ANNOTATION.command] !== undefined;
  const ruledOut = mustNotBeRoot(pod, containerOf(pod));
  if (idle && !ruledOut) return;
  const { view } = await running.guest();
  if (!ruledOut && isRoot(commandUser(view))) return;
  throw new VmsanError({
    code: "ERR_CLUSTER_POD",
    message: `The pod ${running.namespace}/${running.name} is not to be used as a VM`,
    why: "Its commands are not root's, and those of a VM may be anybody's.",
    fix: `Use kubectl exec, logs and cp; or make it with the annotation ${POD_ANNOTATION.command}: none.`,
  });
}

/** One pod's API on one connection. */
class VmApi {
  private readonly pod: RunningPod;
  private readonly daemon: Daemon;
  private readonly gone: AbortSignal;

  constructor(pod: RunningPod, daemon: Daemon, gone: AbortSignal) {
    this.pod = pod;
    this.daemon = daemon;
    this.gone = gone;
  }

  /** What is asked of the VM. @throws ERR_NODE_ROUTE_NOT_FOUND, ERR_VM_NOT_FOUND, ERR_CLUSTER_VERSION */
  private read(request: IncomingMessage): { method: string; path: string; query: string } {
    const said = request.headers[VERSION_HEADER]?.toString();
    if (said !== packageVersion()) {
      throw new VmsanError({
        code: "ERR_CLUSTER_VERSION",
        message: `The host of this pod is of version ${packageVersion()}, the client of ${String(said).slice(0, 64)}`,
        why: "What the two mean by the same words may differ.",
        fix: "Use a vmsan of the hosts' version; kubectl works with every one.",
      });
    }
    // A pod of the same name that was made anew is another one.
    if (request.headers[POD_UID_HEADER] !== this.pod.uid) throw otherPod(this.pod);
    const url = new URL(request.url ?? "/", "http://pod");
    const own = /^\/v1\/vm(\/.*)?$/.exec(url.pathname);
    const { method = "" } = request;
    if (own === null) throw notHere(method, url.pathname);
    return { method, path: own[1] ?? "", query: url.search };
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method, path, query } = this.read(request);
    await checkUsers(this.pod);
    const own = `${vmPath(this.pod.vm)}${path}${query}`;
    const { gone: signal } = this;
    switch (kindOf(method, path)) {
      case "view":
        sendJson(response, shown(await this.daemon.call<VmView>("GET", own, { signal })));
        break;
      case "stats": {
        const samples = `/v1/stats?vm=${this.pod.vm}`;
        sendJson(response, await this.daemon.call<object>("GET", samples, { signal }));
        break;
      }
      case "json": {
        const bytes = await collect(request, MAX_BODY, tooLarge);
        const body = bytes.length === 0 ? {} : { body: parsed(bytes) };
        // Whether it may be made again its client knows.
        const options = { ...body, signal, repeat: false };
        sendJson(response, await this.daemon.call<object>(method, own, options));
        break;
      }
      case "bytes": {
        const source = await this.daemon.download("GET", own, { signal });
        response.writeHead(200, { "content-type": "application/octet-stream" });
        await pipeline(source, response);
        break;
      }
      case undefined:
        throw notHere(method, path);
    }
  }

  async upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const { path } = this.read(request);
    if (!STREAM.test(path)) throw notHere("Upgrade", path);
    await checkUsers(this.pod);
    const guest = await this.daemon.upgrade(
      vmPath(this.pod.vm) + path,
      this.gone,
      patienceOf(request.headers[PATIENCE_HEADER]),
    );
    socket.write(
      "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: vmsan-stream\r\n\r\n",
    );
    if (head.length > 0) socket.unshift(head);
    await joined(socket, guest);
  }
}

function otherPod({ namespace, name }: RunningPod): VmsanError {
  return new VmsanError({
    code: "ERR_VM_NOT_FOUND",
    message: `The pod ${namespace}/${name} is another one now`,
    why: "The VM that was meant is gone, and a pod of its name was made since.",
    fix: "See what there is: vmsan --cluster list.",
  });
}

function tooLarge(): VmsanError {
  return new VmsanError({
    code: "ERR_NODE_REQUEST",
    message: `A request of more than ${MAX_BODY} bytes`,
  });
}

/** A request's body. @throws ERR_NODE_REQUEST */
function parsed(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch (error) {
    throw new VmsanError(
      { code: "ERR_NODE_REQUEST", message: "The request's body is no JSON", why: messageOf(error) },
      error,
    );
  }
}

function notHere(method: string, path: string): VmsanError {
  return new VmsanError({
    code: "ERR_NODE_ROUTE_NOT_FOUND",
    message: `No route ${method} ${path.slice(0, 200)} of a pod's VM`,
    why: "A host answers for a pod what a command in it could do, and what can be looked at.",
    fix: "Change the pod itself: kubectl annotate, kubectl delete.",
  });
}

function sendJson(response: ServerResponse, value: unknown, status = 200): void {
  if (value === undefined) {
    response.writeHead(204).end();
    return;
  }
  const text = JSON.stringify(value);
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
  });
  response.end(text);
}

/** Serve a session until its client has gone. */
export async function serveVmApi(
  session: RemoteSession,
  pod: RunningPod,
  daemon: Daemon,
): Promise<void> {
  const { stdin } = session;
  if (stdin === undefined) {
    await session.end(failureStatus("It wants no standard input, by which requests come."));
    return;
  }
  const api = new VmApi(pod, daemon, session.gone);
  const connection = connectionOf(session, stdin);
  // Its client has gone, which ends what is under way by the session's signal.
  connection.on("error", () => connection.destroy());
  const server = httpModule().createServer();
  server.requestTimeout = 0;
  server.on("request", (request, response) => {
    dropUnread(request, response);
    api.answer(request, response).catch((error: unknown) => {
      if (response.headersSent) response.destroy();
      else refuse(response, error);
    });
  });
  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    api.upgrade(request, socket, head).catch((error: unknown) => {
      const known = asVmsanError(error, "Cannot open a stream to the guest");
      const body = JSON.stringify({ error: known.toJSON() });
      socket.end(
        `HTTP/1.1 ${statusOf(known.code)} Error\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
      );
    });
  });
  server.on("clientError", (_error: Error, socket: Duplex) => socket.destroy());
  server.emit("connection", connection);
  await new Promise<void>((resolve) => connection.once("close", () => resolve()));
}

function refuse(response: ServerResponse, error: unknown): void {
  const known = asVmsanError(error, "The request failed");
  sendJson(response, { error: known.toJSON() }, statusOf(known.code));
}
