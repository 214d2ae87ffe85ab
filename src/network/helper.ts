/** The daemon's end of vmsan-nethelper: sockets made, and programs run, inside a VM's network namespace. */
import { spawn, type ChildProcess } from "node:child_process";
import type { Socket as UdpSocket } from "node:dgram";
import type { Server, Socket } from "node:net";
import { VmsanError, messageOf } from "../model/errors.ts";
import type { RunResult } from "../util/run.ts";
import { adminPath } from "./host/realm.ts";

/** One logged packet, as the helper tells it. */
export interface FlowEvent {
  vm: string;
  /** `a:RULE` or `d:RULE`, from the log statement. */
  prefix: string;
  /** IP protocol number. */
  protocol: number;
  address: string;
  port?: number;
}

interface Pending {
  resolve: (handle: unknown) => void;
  reject: (error: Error) => void;
}

interface Reply {
  id: number;
  ok: boolean;
  errno?: string;
  error?: string;
  run?: { code: number; signal?: string; stdout: string; stderr: string };
}

/** Whether a message is an answer of the helper. */
function isReply(value: unknown): value is Reply {
  return typeof value === "object" && value !== null && "id" in value && "ok" in value;
}

/** Whether a message is a logged packet. */
function isFlow(value: unknown): value is FlowEvent {
  return typeof value === "object" && value !== null && "event" in value && value.event === "flow";
}

/** A system error that the helper met, with its errno as `code`. */
function systemError(reply: Reply, action: string): Error {
  const error = new Error(`${action}: ${reply.error ?? "failed"}`);
  return reply.errno === undefined || reply.errno === ""
    ? error
    : Object.assign(error, { code: reply.errno });
}

/**
 * A running helper. Started on first use; when it dies, open requests fail and the next one
 * starts another. Sockets it has handed over are not affected by its end.
 */
export class Helper {
  private readonly command: () => readonly string[];
  private readonly onFlow: (event: FlowEvent) => void;
  private readonly onExit: () => void;
  private child: ChildProcess | undefined;
  private readonly pending = new Map<number, Pending>();
  private nextId = 1;
  private stderr = "";

  /**
   * @param command gives argv, with whatever enters the namespaces it shall work from
   * @param onFlow receives logged packets
   * @param onExit told when a helper ended by itself
   */
  constructor(
    command: () => readonly string[],
    onFlow: (event: FlowEvent) => void,
    onExit: () => void = () => undefined,
  ) {
    this.command = command;
    this.onFlow = onFlow;
    this.onExit = onExit;
  }

  /** The process, started if it is not there. */
  private start(): ChildProcess {
    if (this.child !== undefined) return this.child;
    const [file = "", ...args] = this.command();
    const child = spawn(file, args, {
      stdio: ["ignore", "ignore", "pipe", "ipc"],
      env: { ...process.env, PATH: adminPath, LC_ALL: "C" },
    });
    this.child = child;
    this.stderr = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.stderr = (this.stderr + text).slice(-2000);
    });
    child.on("message", (message: unknown, handle: unknown) => this.receive(message, handle));
    child.on("error", (error) => this.lost(child, messageOf(error)));
    child.on("exit", (code, signal) => this.lost(child, `ended with ${signal ?? code}`));
    child.unref();
    child.channel?.unref();
    return child;
  }

  /** Answer the request a message belongs to, or pass a logged packet on. */
  private receive(message: unknown, handle: unknown): void {
    if (isFlow(message)) {
      this.onFlow(message);
      return;
    }
    if (!isReply(message)) return;
    const pending = this.pending.get(message.id);
    this.pending.delete(message.id);
    if (this.pending.size === 0) this.child?.channel?.unref();
    if (message.ok) pending?.resolve(message.run ?? handle);
    else pending?.reject(systemError(message, "network helper"));
  }

  private broken(child: ChildProcess, why: string): VmsanError {
    return new VmsanError({
      code: "ERR_NETWORK_HELPER",
      message: `The network helper (${child.spawnargs.join(" ")}) does not work`,
      why: `It ${why}. ${this.stderr.trim()}`.trim(),
      fix: "Run `vmsan doctor`; if the file is missing, install vmsan again.",
    });
  }

  /** Fail what waits for a helper that is gone. */
  private lost(child: ChildProcess, why: string): void {
    if (this.child !== child) return;
    this.child = undefined;
    const error = this.broken(child, why);
    for (const { reject } of this.pending.values()) reject(error);
    this.pending.clear();
    this.onExit();
  }

  /** Send a request; gives the socket that came back, if any. */
  private async request(fields: Record<string, unknown>): Promise<unknown> {
    const child = this.start();
    const id = this.nextId;
    this.nextId += 1;
    return new Promise((resolve, reject) => {
      this.pending.set(id, { resolve, reject });
      // The process must not end while it waits for an answer.
      child.channel?.ref();
      child.send({ id, ...fields }, (error) => {
        // Its end of the channel is closed, and its own end not told of yet.
        if (error !== null && this.pending.delete(id))
          reject(this.broken(child, `takes nothing any more: ${messageOf(error)}`));
      });
    });
  }

  /** Check that the helper runs. */
  async hello(): Promise<void> {
    await this.request({ op: "hello" });
  }

  /** Listen on TCP `address` (`host:port`) in a namespace; transparent: for TPROXY. */
  async listen(netns: string, address: string, transparent = false): Promise<Server> {
    const server = (await this.request({ op: "listen", netns, address, transparent })) as Server;
    // Node makes it without a way to say so: its connections may be closed in one direction.
    return Object.assign(server, { allowHalfOpen: true });
  }

  /** A datagram socket bound to `address` (`host:port`) in a namespace. */
  async udp(netns: string, address: string): Promise<UdpSocket> {
    return (await this.request({ op: "udp", netns, address })) as UdpSocket;
  }

  /** A TCP connection from within a namespace. */
  async connect(netns: string, address: string, timeoutMs: number): Promise<Socket> {
    const socket = (await this.request({ op: "connect", netns, address, timeoutMs })) as Socket;
    return Object.assign(socket, { allowHalfOpen: true });
  }

  /** Write files below /proc/sys/net as seen from a namespace. */
  async sysctl(netns: string, writes: Record<string, string>): Promise<void> {
    await this.request({ op: "sysctl", netns, writes });
  }

  /**
   * Run a program to its end. This process would stand still for each that it starts itself, the longer the larger it is.
   * @param netns path of the namespace to run it in; undefined: where the helper is
   */
  async run(
    netns: string | undefined,
    argv: readonly string[],
    input: string,
    timeoutMs: number,
  ): Promise<RunResult> {
    const ended = await this.request({ op: "run", netns, argv, input, timeoutMs });
    const { code, signal = null, stdout, stderr } = ended as NonNullable<Reply["run"]>;
    return { code: signal === null ? code : null, signal, stdout, stderr };
  }

  /** Make IPv6 packets with a mark look up a routing table, in a namespace. */
  async rule6(netns: string, mark: number, table: number): Promise<void> {
    await this.request({ op: "rule6", netns, mark, table });
  }

  /** Start to receive the packets that a namespace's rules log. */
  async log(vm: string, netns: string, group: number): Promise<void> {
    await this.request({ op: "log", vm, netns, group });
  }

  /** Stop it. */
  async unlog(vm: string): Promise<void> {
    if (this.child !== undefined) await this.request({ op: "unlog", vm });
  }

  /** End the helper. */
  stop(): void {
    const child = this.child;
    this.child = undefined;
    if (child?.connected === true) child.disconnect();
  }
}
