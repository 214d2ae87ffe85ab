/** An interactive shell that goes on when the connection is left or lost. */
import { listStreams } from "../../agent/commands.ts";
import { attachStream } from "../../agent/streams.ts";
import type { StreamInfo } from "../../agent/spec.ts";
import type { Vm } from "../../client/vm.ts";
import { VmsanError } from "../../model/errors.ts";
import { joinSession } from "./exec.ts";
import { timeLimitPassed } from "./time-limit.ts";
import { localSize } from "./terminal.ts";

const SESSION = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
const LABEL_PREFIX = "shell:";

/** The running shell of that name, if there is one. */
async function findShell(vm: Vm, label: string): Promise<StreamInfo | undefined> {
  const streams = await listStreams(vm.transport);
  return streams.find((info) => info.running && info.label === label);
}

/** A shell of which nobody sees anything would wait for ever. @throws ERR_VALIDATION_FLAGS */
export function requireTerminal(): void {
  if (process.stdin.isTTY) return;
  throw new VmsanError({
    code: "ERR_VALIDATION_FLAGS",
    message: "Cannot open a shell",
    why: "Standard input is no terminal.",
    fix: "For commands from a file or a pipe: vmsan exec VM sh -s <FILE.",
  });
}

/**
 * Open a shell, or return to the one of that name with what it has printed so far.
 * @returns the shell's exit status; 0 after leaving it with the detach keys
 * @throws ERR_VALIDATION_FLAGS without a terminal
 */
export async function connectShell(
  vm: Vm,
  options: { session?: string; user?: string },
): Promise<number> {
  requireTerminal();
  const session = options.session ?? "main";
  if (!SESSION.test(session)) {
    throw new VmsanError({
      code: "ERR_VALIDATION_FLAGS",
      message: `Invalid session: ${JSON.stringify(session)}`,
      why: "A session's name has letters, digits, '.', '_' and '-'.",
      fix: "For example: -s work.",
    });
  }
  const label = `${LABEL_PREFIX}${session}`;
  const write = (chunk: Buffer): Promise<void> | undefined =>
    process.stdout.write(chunk)
      ? undefined
      : new Promise((resolve) => process.stdout.once("drain", resolve));
  const found = await findShell(vm, label);
  const stream =
    found === undefined
      ? vm.spawn(
          [],
          {
            tty: localSize(),
            label,
            ...(options.user === undefined ? {} : { user: options.user }),
          },
          { onStdout: write },
        )
      : attachStream(vm.transport, found.id, { onStdout: write });
  await stream.started;
  const joined = joinSession(stream, { withInput: true, tty: true, leaves: true });
  try {
    const { exitCode } = await stream.exit;
    joined.end();
    const timeLimit = await timeLimitPassed(vm);
    if (timeLimit !== undefined) process.stderr.write(`\n${timeLimit}\n`);
    return exitCode;
  } catch (error) {
    if (!joined.detached) throw error;
    joined.end();
    process.stderr.write(
      `\ndetached from ${session}; return with: vmsan connect ${vm.id} -s ${session}\n`,
    );
    return joined.leftWith;
  } finally {
    joined.end();
  }
}
