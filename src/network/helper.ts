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

/** Where a request's answer goes. */
interface Pending {
  resolve: (handle: unknown) => void;
  reject: (error: Error) => void;
  /** It runs a program, which may go on when the helper has ended. */
  isProgram: boolean;
}

/** A helper's process, and what it has been asked and not answered. */
interface Running {
  readonly child: ChildProcess;
  readonly pending: Map<number, Pending>;
  stderr: string;
  /** That it is no longer there has been told. */
  told: boolean;
}

/** Milliseconds for which programs of a helper that has ended are waited for: as long as it lets them run. */
const PROGRAMS_MS = 30_000;

/** A packet log that is being read. */
export interface PacketLog {
  /** Resolves when it is; rejects when it cannot be. */
  readonly begun: Promise<void>;
  /** Stop it, also before it has begun. */
  stop(): void;
}

interface Reply {
  id: number;
  ok: boolean;
  errno?: string;
  error?: string;
  run?: { code: number; signal?: string; stdout: string; stderr: string };
}

/** The codes of {@link isLost}. */
type HelperCode = "ERR_NETWORK_HELPER" | "ERR_NETWORK_HELPER_LOST";

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
 * Whether a request was with a helper that ended: nobody knows whether it was carried out. ERR_NETWORK_HELPER says of
 * one that it never was.
 */
export function isLost(error: unknown): boolean {
  return error instanceof VmsanError && error.code === "ERR_NETWORK_HELPER_LOST";
}

/**
 * A running helper. Started on first use; when it dies, the next request starts another, and open ones are made again,
 * but for programs, which may do things that must not be done twice: those fail, once none of them runs any more.
 * Sockets it has handed over are not affected by its end.
 */
export class Helper {
  private readonly command: () => readonly string[];
  private readonly onFlow: (event: FlowEvent) => void;
  private readonly onExit: () => void;
  private running: Running | undefined;
  private nextId = 1;
  private nextLog = 1;

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
  private start(): Running {
    // One whose channel has ended is on its way out, and takes nothing any more.
    if (this.running?.child.connected === true) return this.running;
    const [file = "", ...args] = this.command();
    const child = spawn(file, args, {
      stdio: ["ignore", "ignore", "pipe", "ipc"],
      env: { ...process.env, PATH: adminPath, LC_ALL: "C" },
    });
    const running: Running = { child, pending: new Map(), stderr: "", told: false };
    this.running = running;
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      running.stderr = (running.stderr + text).slice(-2000);
    });
    child.on("message", (message: unknown, handle: unknown) => {
      this.receive(running, message, handle);
    });
    child.on("error", (error) => {
      // Never started; what else is said here does not end it.
      if (child.pid === undefined) this.lost(running, messageOf(error), "ERR_NETWORK_HELPER");
    });
    // Both: its last answers may be read after its end was told of.
    child.on("exit", (code, signal) => {
      if (!child.connected) this.lost(running, `ended with ${signal ?? code}`);
    });
    child.on("disconnect", () => {
      const { exitCode, signalCode } = child;
      if (exitCode !== null || signalCode !== null)
        this.lost(running, `ended with ${signalCode ?? exitCode}`);
      else {
        // It does nothing for anybody any more, and would keep whoever waits for it.
        child.kill("SIGKILL");
        this.gone(running);
      }
    });
    child.unref();
    child.channel?.unref();
    return running;
  }

  /** Answer the request a message belongs to, or pass a logged packet on. */
  private receive({ child, pending }: Running, message: unknown, handle: unknown): void {
    if (isFlow(message)) {
      this.onFlow(message);
      return;
    }
    if (!isReply(message)) return;
    const one = pending.get(message.id);
    pending.delete(message.id);
    if (pending.size === 0) child.channel?.unref();
    if (message.ok) one?.resolve(message.run ?? handle);
    else one?.reject(systemError(message, "network helper"));
  }

  private broken({ child, stderr }: Running, why: string, code: HelperCode): VmsanError {
    return new VmsanError({
      code,
      message: `The network helper (${child.spawnargs.join(" ")}) does not work`,
      why: `It ${why}. ${stderr.trim()}`.trim(),
      fix: "Run `vmsan doctor`; if the file is missing, install vmsan again.",
    });
  }

  /** A helper has ended by itself. */
  private lost(running: Running, why: string, code: HelperCode = "ERR_NETWORK_HELPER_LOST"): void {
    this.settle(running, why, code);
    this.gone(running);
  }

  /** A helper is of no use any more; the next request starts another. */
  private gone(running: Running): void {
    if (this.running === running) this.running = undefined;
    if (running.told) return;
    running.told = true;
    this.onExit();
  }

  /**
   * Fail what waits for a helper that is gone, programs once all of them have ended: they have its error output as well,
   * which is closed with the last of them.
   */
  private settle(running: Running, why: string, code: HelperCode): void {
    const { child, pending } = running;
    const fail = (programs: boolean): void => {
      for (const [id, { isProgram, reject }] of pending) {
        if (isProgram && !programs) continue;
        pending.delete(id);
        const began = isProgram && child.pid !== undefined;
        reject(this.broken(running, why, began ? "ERR_NETWORK_HELPER_LOST" : code));
      }
    };
    const { stderr } = child;
    fail(child.pid === undefined || stderr === null || stderr.closed);
    if (pending.size === 0 || stderr === null) return;
    const timer = setTimeout(() => stderr.destroy(), PROGRAMS_MS);
    stderr.once("close", () => {
      clearTimeout(timer);
      fail(true);
    });
  }

  /** Send a request; gives the socket that came back, if any. */
  private async ask(fields: Record<string, unknown>): Promise<unknown> {
    const running = this.start();
    const { child, pending } = running;
    const id = this.nextId;
    this.nextId += 1;
    return new Promise((resolve, reject) => {
      pending.set(id, { resolve, reject, isProgram: fields["op"] === "run" });
      // The process must not end while it waits for an answer.
      child.channel?.ref();
      child.send({ id, ...fields }, (error) => {
        // Its end of the channel is closed, and its own end not told of yet.
        if (error !== null && pending.delete(id)) {
          const why = `takes nothing any more: ${messageOf(error)}`;
          reject(this.broken(running, why, "ERR_NETWORK_HELPER"));
        }
      });
    });
  }

  /** The same for what may be done twice: again by another helper when one ended meanwhile. */
  private async request(fields: Record<string, unknown>): Promise<unknown> {
    try {
      return await this.ask(fields);
    } catch (error) {
      if (!isLost(error)) throw error;
      return await this.ask(fields);
    }
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
   * @throws see {@link isLost}
   */
  async run(
    netns: string | undefined,
    argv: readonly string[],
    input: string,
    timeoutMs: number,
  ): Promise<RunResult> {
    const ended = await this.ask({ op: "run", netns, argv, input, timeoutMs });
    const { code, signal = null, stdout, stderr } = ended as NonNullable<Reply["run"]>;
    return { code: signal === null ? code : null, signal, stdout, stderr };
  }

  /** Make IPv6 packets with a mark look up a routing table, in a namespace. */
  async rule6(netns: string, mark: number, table: number): Promise<void> {
    await this.request({ op: "rule6", netns, mark, table });
  }

  /** Receive the packets that a namespace's rules log, instead of an earlier log of the VM's. */
  log(vm: string, netns: string, group: number): PacketLog {
    const log = this.nextLog;
    this.nextLog += 1;
    const begun = this.request({ op: "log", vm, netns, group, log }).then(() => undefined);
    const stop = (): void => {
      // The helper may be gone already, and the log with it.
      if (this.running !== undefined) this.ask({ op: "unlog", vm, log }).catch(() => undefined);
    };
    return { begun, stop };
  }

  /** End the helper; what it has not answered fails. */
  stop(): void {
    const { running } = this;
    if (running === undefined) return;
    this.running = undefined;
    running.told = true;
    if (running.child.connected) running.child.disconnect();
    this.settle(running, "was stopped", "ERR_NETWORK_HELPER");
  }
}
