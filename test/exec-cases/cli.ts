/** Commands of the exec suite by `vmsan exec` in a process of its own, on either client. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { VmsanError } from "../../src/model/errors.ts";
import type { StreamSpec } from "../../src/agent/spec.ts";
import type { StartCommand } from "./run.ts";

/** bin/vmsan of this checkout. */
export const launcher = join(import.meta.dirname, "../../bin/vmsan");

/** What either client says itself on standard error, behind what the command has said. */
const OWN_LINES = /^(?:vmsan: .*|error: .* \[ERR_\w+\]|  (?:why|fix): .*)\n/gm;

/** `native`: bin/vmsan as users have it; `node`: the client in TypeScript, whatever the command. */
export type ClientKind = "native" | "node";

/** The environment in which bin/vmsan uses that client for that VMSAN_DIR. */
export function clientEnvironment(kind: ClientKind, dir: string): NodeJS.ProcessEnv {
  const { VMSAN_CLIENT: _, ...rest } = process.env;
  return { ...rest, VMSAN_DIR: dir, ...(kind === "node" ? { VMSAN_CLIENT: "node" } : {}) };
}

/** The words behind `vmsan` that ask for this; time limits are whole seconds there. */
function wordsOf(spec: StreamSpec): string[] {
  const { argv = [], env = [], workdir, user, tty, timeoutMs } = spec;
  return [
    "exec",
    ...env.flatMap((entry) => ["-e", entry]),
    ...(workdir === undefined ? [] : ["--workdir", workdir]),
    ...(user === undefined ? [] : ["-u", user]),
    ...(tty === undefined ? [] : ["--tty"]),
    ...(timeoutMs === undefined ? [] : ["--timeout", `${Math.ceil(timeoutMs / 1000)}s`]),
    "vm",
    "--",
    ...argv,
  ];
}

/** What starts commands in the VM `vm` of that VMSAN_DIR. */
export function cliStart(kind: ClientKind, dir: string): StartCommand {
  return (spec, outputs) => {
    const child = spawn(launcher, wordsOf(spec), {
      stdio: [spec.stdin === true ? "pipe" : "ignore", "pipe", "pipe"],
      env: clientEnvironment(kind, dir),
    });
    const errors: Buffer[] = [];
    child.stdout?.on("data", (chunk: Buffer) => void outputs.onStdout(chunk));
    child.stderr?.on("data", (chunk: Buffer) => errors.push(chunk));
    // A command that does not read its input is its own affair.
    child.stdin?.on("error", () => undefined);
    const exit = new Promise<{ exitCode: number; timedOut: boolean }>((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code, signal) => {
        const said = Buffer.concat(errors).toString("latin1");
        void outputs.onStderr(Buffer.from(said.replaceAll(OWN_LINES, ""), "latin1"));
        // A reader who has left (ERR_OUTPUT) is no failure of the command's start.
        const failed = /^error: (.*) \[(?!ERR_OUTPUT\])(ERR_\w+)\]$/m.exec(said);
        if (code === null) reject(new Error(`vmsan itself was ended by ${String(signal)}`));
        else if (failed === null) {
          resolve({ exitCode: code, timedOut: /^vmsan: .*time limit/m.test(said) });
        } else reject(new VmsanError({ code: failed[2] ?? "", message: failed[1] ?? "" }));
      });
    });
    const impossible = (what: string) => (): never => {
      throw new Error(`a process cannot be asked to ${what}`);
    };
    return {
      get stdin() {
        if (child.stdin === null) throw new Error("a command without input");
        return child.stdin;
      },
      signal: (name) => void child.kill(name as NodeJS.Signals),
      resize: impossible("resize"),
      closeOutput: (name) => child[name]?.destroy(),
      exit,
    };
  };
}
