/** What all commands share: their flags, their context, and how their failures end. */
import { once } from "node:events";
import { Option } from "commander";
import type { Command, HelpConfiguration } from "commander";
import type { Vmsan } from "../client/vmsan.ts";
import { clusterOf } from "./cluster-flags.ts";
import { OptionsFirst } from "./options-first.ts";
import { Output } from "./output.ts";
import type { CommonFlags } from "./output.ts";

declare global {
  /** When bin/vmsan began, as its `date` says (bin/start.cjs). */
  var vmsanBegan: string | undefined;
}

/** What an action is given besides its arguments. */
export interface Context<Flags> {
  flags: Flags & CommonFlags;
  output: Output;
  /** The SDK, loaded and made on first use. */
  vmsan: () => Promise<Vmsan>;
}

/** Lists of commands with names only, so that their descriptions fit into 80 columns. */
export const helpLayout: HelpConfiguration = {
  subcommandTerm: (listed) => [listed.name(), ...listed.aliases()].join(", "),
};

/** A new command with the flags that every command takes. */
export function command(nameAndArgs: string, description: string): OptionsFirst {
  const [name = "", ...args] = nameAndArgs.split(" ");
  const made = new OptionsFirst(name).description(description).configureHelp(helpLayout);
  if (args.length > 0) made.arguments(args.join(" "));
  return made
    .addOption(new Option("--json", "one JSON object on standard output"))
    .addOption(new Option("--verbose", "say more on standard error"))
    .addOption(new Option("--timing", "say on standard error where the time went"))
    .addOption(new Option("--trace <file>", "write the same as a trace for Perfetto"));
}

/** Give a command its action: context first, then its arguments. */
export function runs<Flags extends object>(
  target: Command,
  action: (context: Context<Flags>, ...args: never[]) => Promise<number | void>,
): Command {
  return target.action(async (...all: unknown[]) => {
    const flags = target.optsWithGlobals<Flags & CommonFlags>();
    const output = new Output(flags);
    const args = all.slice(0, target.registeredArguments.length) as never[];
    const context: Context<Flags> = {
      flags,
      output,
      vmsan: async () => {
        const { Vmsan } = await import("../client/vmsan.ts");
        const cluster = clusterOf(target);
        return new Vmsan(cluster === undefined ? {} : { cluster });
      },
    };
    const { timing, trace } = flags;
    const isTimed = timing === true || trace !== undefined;
    if (isTimed) {
      (await import("../client/tracing/timeline.ts")).keepTimeline(globalThis.vmsanBegan);
      const { tellTiming } = await import("./timing.ts");
      // Whatever ends this process, with all that it had still to wait for.
      process.once("exit", () =>
        tellTiming(`vmsan ${target.name()}`, timing === true, trace, output),
      );
    }
    try {
      // A command that is about this host alone must not pass over what it was told of a cluster.
      clusterOf(target);
      process.exitCode = await inTrace(target, async () => (await action(context, ...args)) ?? 0);
    } catch (error) {
      process.exitCode = output.failure(error);
    }
  });
}

/** Commands that are one piece of work, which has spans below it where traces are asked for. */
const TRACED = ["run", "create", "start", "fork", "exec", "build", "pull", "restore"];

/** Do a command's work, in a span of its own where that is asked for. */
async function inTrace(target: Command, body: () => Promise<number>): Promise<number> {
  const name = target.name();
  // What makes traces is not loaded for a look at the environment.
  const { OTEL_EXPORTER_OTLP_ENDPOINT = "", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT = "" } = process.env;
  const asked = OTEL_EXPORTER_OTLP_ENDPOINT + OTEL_EXPORTER_OTLP_TRACES_ENDPOINT;
  if (asked === "" || !TRACED.includes(name)) return await body();
  const { tracedProgram } = await import("../client/tracing/tracing.ts");
  const describe = (status: number): Record<string, number> => ({ "process.exit.code": status });
  return await tracedProgram(`vmsan ${name}`, body, describe);
}

/** For repeatable options: all values in order. */
export function collect(value: string, previous: string[] | undefined): string[] {
  return [...(previous ?? []), value];
}

/** For comma lists, also repeated. */
export function collectList(value: string, previous: string[] | undefined): string[] {
  return [...(previous ?? []), ...value.split(",").map((item) => item.trim())];
}

/** `exec ID -- cmd` and `exec ID cmd` are the same: what follows the VM is the command. */
export function withoutSeparator(argv: readonly string[]): string[] {
  return argv[0] === "--" ? argv.slice(1) : [...argv];
}

/**
 * An abort signal for the user's interrupts.
 * The first one aborts, later ones end the process at once with the usual status.
 */
export function interruptSignal(): {
  signal: AbortSignal;
  dispose: () => void;
  number: () => number;
  /** Resolves at the first one. */
  come: () => Promise<void>;
} {
  const controller = new AbortController();
  let received = 0;
  const handlers = (["SIGINT", "SIGTERM", "SIGHUP"] as const).map((name) => {
    const number = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 }[name];
    const handler = (): void => {
      if (received !== 0) process.exit(128 + number);
      received = number;
      controller.abort(new Error(`interrupted by ${name}`));
    };
    process.on(name, handler);
    return { name, handler };
  });
  return {
    signal: controller.signal,
    dispose: () => handlers.forEach(({ name, handler }) => process.off(name, handler)),
    number: () => received,
    come: async () => {
      if (!controller.signal.aborted) await once(controller.signal, "abort");
    },
  };
}
