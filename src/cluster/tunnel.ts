/** A connection to the API of a pod's VM: a session of `exec` whose input and output are its bytes. */
import { Duplex } from "node:stream";
import type { RawData, WebSocket } from "ws";
import type { Tunnel } from "../client/transport.ts";
import { apiPath, isStatus } from "../kube/api-server.ts";
import type { KubeClient } from "../kube/client.ts";
import { VmsanError } from "../model/errors.ts";
import { POD_UID_HEADER, VM_API_COMMAND } from "../kube/pod-words.ts";
import { vmNotFound } from "./errors.ts";

/** The protocol of sessions: the first byte of a message says which stream it belongs to. */
const PROTOCOL = "v5.channel.k8s.io";
const Channel = { stdin: 0, stdout: 1, stderr: 2, status: 3, close: 255 } as const;

/** Most bytes of one message that is sent. */
const PIECE = 256 << 10;
/** How often the other end is asked for a sign, and after how long without one it is given up, in milliseconds. */
const PING_MS = 10_000;
const SILENCE_MS = 60_000;

/** A pod that has a VM. */
export interface PodTarget {
  namespace: string;
  name: string;
  uid: string;
  container: string;
}

/** As a broken connection to a daemon is told: streams go on over the next one. */
function broken(why: string): Error {
  return Object.assign(new Error(`the connection to the pod broke: ${why}`), {
    code: "ECONNRESET",
  });
}

function bytesOf(data: RawData): Buffer {
  if (Buffer.isBuffer(data)) return data;
  return Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data);
}

/** The bytes of a session's input and output. */
class SessionConnection extends Duplex {
  private readonly socket: WebSocket;
  private readonly target: PodTarget;
  private said = "";
  private over = false;
  private heardAt = performance.now();
  private readonly timer: NodeJS.Timeout;

  constructor(socket: WebSocket, target: PodTarget) {
    super();
    this.socket = socket;
    this.target = target;
    const heard = (): void => {
      this.heardAt = performance.now();
    };
    for (const sign of ["pong", "ping", "message"]) socket.on(sign, heard);
    socket.on("message", (data) => this.accept(bytesOf(data)));
    socket.on("error", (error) => this.destroy(broken(error.message)));
    socket.on("close", (code) => {
      if (!this.over) this.destroy(broken(`it was closed with ${code}`));
    });
    this.timer = setInterval(() => this.look(), PING_MS);
    this.timer.unref();
    socket.resume();
  }

  private look(): void {
    if (performance.now() - this.heardAt > SILENCE_MS && !this.socket.isPaused) {
      this.destroy(broken("nothing was heard of it any more"));
    } else if (this.socket.readyState === this.socket.OPEN) this.socket.ping();
  }

  private accept(message: Buffer): void {
    const rest = message.subarray(1);
    switch (message[0] ?? Channel.close) {
      case Channel.stdout:
        if (!this.push(rest)) this.socket.pause();
        break;
      case Channel.stderr:
        this.said = (this.said + rest.toString("utf8")).slice(0, 500);
        break;
      case Channel.status:
        this.ended(rest);
        break;
      default:
        // Streams that only clients write to, and those of later versions.
        break;
    }
  }

  /** How the session ended: the node's end, or what a host says that knows no such command. */
  private ended(bytes: Buffer): void {
    this.over = true;
    let status: { status?: string; message?: string } = {};
    try {
      status = JSON.parse(bytes.toString("utf8")) as typeof status;
    } catch {
      // SyntaxError: nothing is known of the end but that it is one.
    }
    if (status.status === "Success") this.push(null);
    else this.destroy(notOurs(this.target, this.said || (status.message ?? "")));
  }

  override _read(): void {
    if (this.socket.isPaused) this.socket.resume();
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    const pieces: Buffer[] = [];
    for (let at = 0; at < chunk.length; at += PIECE) {
      pieces.push(Buffer.concat([Buffer.of(Channel.stdin), chunk.subarray(at, at + PIECE)]));
    }
    const last = pieces.pop();
    for (const piece of pieces) this.socket.send(piece);
    if (last === undefined) done();
    else this.socket.send(last, (error) => done(error ? broken(error.message) : undefined));
  }

  override _final(done: (error?: Error | null) => void): void {
    this.socket.send(Buffer.of(Channel.close, Channel.stdin), () => done());
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    clearInterval(this.timer);
    this.over = true;
    this.socket.terminate();
    done(error);
  }
}

/** A pod on a node that is no host of ours, or of a version that has no API for pods. */
function notOurs({ namespace, name }: PodTarget, said: string): VmsanError {
  return new VmsanError({
    code: "ERR_CLUSTER_POD",
    message: `The pod ${namespace}/${name} does not answer as a VM`,
    why: said === "" ? "Its node gave no reason." : said,
    fix: "Check that its node is a host of vmsan of this version (kubectl get nodes -l vmsan.io/node); kubectl exec works with every pod.",
  });
}

/** The way to the API of a pod's VM. */
export function tunnelTo(api: KubeClient, target: PodTarget): Tunnel {
  const { namespace, name, uid, container } = target;
  const query = new URLSearchParams({
    container,
    command: VM_API_COMMAND,
    stdin: "true",
    stdout: "true",
    stderr: "true",
  });
  const path = `${apiPath("v1", "namespaces", namespace, "pods", name, "exec")}?${query.toString()}`;
  return {
    name: `pod ${namespace}/${name}`,
    headers: { [POD_UID_HEADER]: uid },
    open: async () => {
      try {
        return new SessionConnection(await api.webSocket(path, PROTOCOL), target);
      } catch (error) {
        if (isStatus(error, 404)) throw vmNotFound(name, error);
        throw error;
      }
    },
  };
}
