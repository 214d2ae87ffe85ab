/** Tools that run things: commands, code, and what they printed. */
import type { McpServer } from "@modelcontextprotocol/server";
import * as z from "zod";
import type { ExecOptions } from "../../client/guest/commands.ts";
import type { Vm } from "../../client/vm.ts";
import { SHOWN_BYTES } from "../outputs.ts";
import { within } from "../policy.ts";
import type { Session } from "../session.ts";
import { LANGUAGES, byFirstWay } from "./languages.ts";
import type { Language } from "./languages.ts";
import { addTool, sandboxRef } from "./tool.ts";
import type { ToolAnswer, ToolWork } from "./tool.ts";

/**
 * Time limit of commands without one, in seconds: many clients give up on calls after a minute, and what
 * was printed until then would be lost.
 */
const DEFAULT_SECONDS = 50;

/** What a command is run with. */
interface Running {
  argv: readonly string[];
  input: string | undefined;
  seconds: number | undefined;
  options: ExecOptions;
}

/** Run to the end, telling what is printed; the call's end ends the command. */
async function run(vm: Vm, what: Running, work: ToolWork): Promise<ToolAnswer> {
  const { session, signal, progress } = work;
  const { maxCommandSeconds } = session.policy;
  const seconds = within(
    "seconds of time limit",
    what.seconds ?? Math.min(DEFAULT_SECONDS, maxCommandSeconds),
    maxCommandSeconds,
  );
  const output = session.outputs.open(vm.id);
  const take = (chunk: Buffer): void => {
    output.add(chunk);
    progress.add(chunk.toString("utf8"), chunk.length);
  };
  const stream = vm.spawn(
    what.argv,
    {
      ...what.options,
      stdin: what.input !== undefined,
      timeoutMs: seconds * 1000,
      graceMs: 2_000,
      label: "mcp",
    },
    { onStdout: take, onStderr: take, signal },
  );
  if (what.input !== undefined) {
    // A command that does not read its input is its own affair; its status tells.
    stream.stdin.on("error", () => undefined);
    stream.stdin.end(what.input);
  }
  const exit = await stream.exit;
  const notes = [
    exit.timedOut ? `[ended at its time limit of ${seconds} s]` : "",
    exit.oomKilled ? "[ended: the sandbox has no more memory]" : "",
    exit.exitCode === 0 ? "" : `[exit code ${exit.exitCode}]`,
  ].filter((note) => note !== "");
  const printed = output.shown();
  const text = [printed, ...notes].filter((part) => part !== "").join("\n");
  return { text: text === "" ? "[no output]" : text, failed: exit.exitCode !== 0 };
}

const timeout = z
  .int()
  .min(1)
  .optional()
  .describe(`seconds after which it is ended; default ${DEFAULT_SECONDS}`);
const workdir = z.string().max(4096).optional().describe("directory to run in");
const user = z.string().max(100).optional().describe("user name or ID; default the image's");

/** Add them. */
export function addCommandTools(server: McpServer, session: Session): void {
  const shown = `At most ${SHOWN_BYTES / 1000} kB of the output are returned, its beginning and its end; read_output gives the rest.`;

  addTool(
    server,
    session,
    "run_command",
    {
      title: "Run a command",
      description: `Run a shell command in a sandbox to its end and return what it prints and its exit code. ${shown} For servers use "command &" with their output in a file: what is left running goes on.`,
      input: z.object({
        sandbox: sandboxRef,
        command: z.string().min(1).max(1_000_000).describe("a line of shell, run by sh -c"),
        workdir,
        user,
        env: z.record(z.string(), z.string()).optional(),
        stdin: z.string().max(4_000_000).optional().describe("standard input"),
        timeout_seconds: timeout,
      }),
    },
    async (input, work) =>
      await run(
        session.sandbox(input.sandbox),
        {
          argv: ["sh", "-c", input.command],
          input: input.stdin,
          seconds: input.timeout_seconds,
          options: {
            ...(input.workdir === undefined ? {} : { workdir: input.workdir }),
            ...(input.user === undefined ? {} : { user: input.user }),
            env: Object.entries(input.env ?? {}).map(([key, value]) => `${key}=${value}`),
          },
        },
        work,
      ),
  );

  addTool(
    server,
    session,
    "run_code",
    {
      title: "Run code",
      description: `Run a program given as text, by the interpreter or compiler that the sandbox's image has, and return what it prints. ${shown}`,
      input: z.object({
        sandbox: sandboxRef,
        language: z.enum(Object.keys(LANGUAGES) as [Language, ...Language[]]),
        code: z
          .string()
          .min(1)
          .max(4_000_000)
          .describe("the whole program; of Java the first class of the file is run"),
        args: z.array(z.string()).max(1000).optional().describe("words that the program is given"),
        workdir,
        user,
        timeout_seconds: timeout,
      }),
    },
    async (input, work) => {
      const vm = session.sandbox(input.sandbox);
      const options = {
        ...(input.workdir === undefined ? {} : { workdir: input.workdir }),
        ...(input.user === undefined ? {} : { user: input.user }),
      };
      const seconds = input.timeout_seconds;
      return await byFirstWay(vm, input.language, work.signal, async (start) => {
        const argv = [...start, ...(input.args ?? [])];
        return await run(vm, { argv, input: input.code, seconds, options }, work);
      });
    },
  );

  addTool(
    server,
    session,
    "read_output",
    {
      title: "Read more of an output",
      description:
        "More of what a command has printed, where its answer said that bytes were left out.",
      input: z.object({
        output: z.int().min(1).describe("number that the answer named"),
        offset: z.int().min(0).default(0).describe("first byte"),
        limit: z.int().min(1).max(SHOWN_BYTES).default(SHOWN_BYTES).describe("bytes"),
      }),
      readOnly: true,
    },
    async ({ output, offset, limit }) => {
      const kept = session.outputs.get(String(output));
      const end = Math.min(kept.size, offset + limit);
      const more = end < kept.size ? `\n[… ${kept.size - end} more bytes: offset ${end} …]` : "";
      return await Promise.resolve({ text: `${kept.slice(offset, limit).toString()}${more}` });
    },
  );
}
