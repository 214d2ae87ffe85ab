/** Long-running programs of a cluster: with a log, killed and started again at will. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { Network } from "./namespaces.ts";

/** One program. */
export class Program {
  readonly name: string;
  readonly log: string;
  private readonly argv: readonly string[];
  private readonly env: NodeJS.ProcessEnv;
  private child: ChildProcess | undefined;

  /** @param log path of the file that takes its output */
  constructor(
    name: string,
    netns: string,
    argv: readonly string[],
    log: string,
    env: NodeJS.ProcessEnv = {},
  ) {
    this.name = name;
    this.log = log;
    this.argv = [...Network.inside(netns), ...argv];
    this.env = { ...process.env, ...env };
  }

  /** Process ID; undefined while it does not run. */
  get pid(): number | undefined {
    const { child } = this;
    return child?.exitCode === null && child.signalCode === null ? child.pid : undefined;
  }

  /** Start it; nsenter becomes the program, so its process number is the program's. */
  start(): void {
    const file = openSync(this.log, "a");
    const [command = "", ...args] = this.argv;
    this.child = spawn(command, args, { stdio: ["ignore", file, file], env: this.env });
    closeSync(file);
  }

  /** End it, by force unless another signal is given, and wait. */
  async stop(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const { child } = this;
    if (child === undefined || this.pid === undefined) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await ended;
  }

  /** The end of its log, for messages of tests. */
  tail(): string {
    const text = existsSync(this.log) ? readFileSync(this.log, "utf8") : "not started";
    const lines = text.split("\n").slice(-12);
    return [this.name, ...lines.map((line) => line.slice(0, 400))].join("\n");
  }
}
