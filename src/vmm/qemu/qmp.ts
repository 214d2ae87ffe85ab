/** QEMU's monitor protocol (docs/interop/qmp-spec): one client, JSON lines, replies in order. */
import type { Socket } from "node:net";
import { VmsanError, messageOf } from "../../model/errors.ts";
import { connectUnix } from "../../util/socket-path.ts";

/** Most bytes of one message; QEMU's replies here are a few kilobytes. */
const maxLine = 4 << 20;

interface Pending {
  command: string;
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
  timer: NodeJS.Timeout;
}

/** An error reply, or a monitor that is gone. */
function monitorError(command: string, why: string, cause?: unknown): VmsanError {
  return new VmsanError(
    {
      code: "ERR_VMM_MONITOR",
      message: `QEMU did not do ${command}`,
      why,
      fix: "See vmm.log in the VM's directory.",
    },
    cause,
  );
}

/** A connected monitor. */
export class Qmp {
  private readonly socket: Socket;
  private readonly pending = new Map<number, Pending>();
  private nextId = 1;
  private buffered = "";
  private greeted: (() => void) | undefined;
  private dead: Error | undefined;
  /** Resolves when the connection has ended, which is when QEMU is gone. */
  readonly closed: Promise<void>;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => this.receive(text));
    socket.on("error", (error) => this.fail(error));
    // QEMU's end is the end: a half-open monitor is of no use.
    socket.on("end", () => socket.destroy());
    this.closed = new Promise((resolve) => {
      socket.on("close", () => {
        this.fail(new Error("the monitor's connection has ended"));
        resolve();
      });
    });
  }

  /**
   * Connect, wait for the greeting, leave negotiation mode.
   * Throws the system's error (ENOENT, ECONNREFUSED) while QEMU does not listen yet.
   */
  static async connect(path: string, signal: AbortSignal): Promise<Qmp> {
    const qmp = new Qmp(await connectUnix(path, signal));
    try {
      await qmp.greeting(signal);
      await qmp.execute("qmp_capabilities", {}, 10_000);
      return qmp;
    } catch (error) {
      qmp.close();
      throw error;
    }
  }

  /** Wait for QEMU's first message. A second client would wait for ever, hence the signal. */
  private async greeting(signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const abort = (): void => reject(signal.reason as Error);
      signal.addEventListener("abort", abort, { once: true });
      this.greeted = () => {
        signal.removeEventListener("abort", abort);
        resolve();
      };
      void this.closed.then(() => {
        signal.removeEventListener("abort", abort);
        reject(monitorError("greet", "The connection ended before the greeting."));
      });
    });
  }

  /**
   * Run a command and give its `return` value.
   * Throws ERR_VMM_MONITOR on an error reply, when QEMU is gone, or after `timeoutMs`.
   */
  async execute(
    command: string,
    args: Record<string, unknown> = {},
    timeoutMs = 30_000,
  ): Promise<unknown> {
    if (this.dead !== undefined) throw monitorError(command, this.dead.message, this.dead);
    const id = this.nextId++;
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.pending.delete(id);
        reject(monitorError(command, `There was no reply within ${timeoutMs} ms.`));
      }, timeoutMs);
      this.pending.set(id, { command, resolve, reject, timer });
      this.socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    });
  }

  /** End the connection; QEMU goes on. */
  close(): void {
    this.socket.destroy();
  }

  /** Reject whatever waits. */
  private fail(error: Error): void {
    this.dead ??= error;
    for (const waiting of this.pending.values()) {
      clearTimeout(waiting.timer);
      waiting.reject(monitorError(waiting.command, error.message, error));
    }
    this.pending.clear();
  }

  /** Take in text, handle each whole line. */
  private receive(text: string): void {
    this.buffered += text;
    if (this.buffered.length > maxLine) {
      this.fail(new Error(`a message of more than ${maxLine} bytes`));
      this.socket.destroy();
      return;
    }
    const lines = this.buffered.split("\n");
    this.buffered = lines.pop() ?? "";
    for (const line of lines) {
      if (line.trim() === "") continue;
      try {
        this.message(JSON.parse(line) as unknown);
      } catch (error) {
        this.fail(new Error(`a message that is not JSON: ${messageOf(error)}`));
        this.socket.destroy();
        return;
      }
    }
  }

  /** Handle one message: greeting, reply or event (events are not needed: state is asked for). */
  private message(value: unknown): void {
    if (typeof value !== "object" || value === null) return;
    if ("QMP" in value) {
      this.greeted?.();
      return;
    }
    if (!("id" in value) || typeof value.id !== "number") return;
    const waiting = this.pending.get(value.id);
    if (waiting === undefined) return;
    this.pending.delete(value.id);
    clearTimeout(waiting.timer);
    if ("return" in value) waiting.resolve(value.return);
    else {
      const error = "error" in value ? value.error : undefined;
      const why =
        typeof error === "object" && error !== null && "desc" in error
          ? String(error.desc)
          : JSON.stringify(value).slice(0, 500);
      waiting.reject(monitorError(waiting.command, why));
    }
  }
}
