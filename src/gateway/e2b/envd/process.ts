/** envd's process.Process: commands and terminals, as streams of the guest. */
import type { IncomingMessage, ServerResponse } from "node:http";
import * as z from "zod";
import { listStreams, signalStream } from "../../../agent/commands.ts";
import type { StreamInfo } from "../../../agent/spec.ts";
import type { ExecOptions } from "../../../client/guest/commands.ts";
import type { Vm } from "../../../client/vm.ts";
import { VmsanError } from "../../../model/errors.ts";
import { validate } from "../../../schema/api.ts";
import { E2bError } from "../errors.ts";
import { ReplyStream, parseObject, readBody, requestMessages, sendUnary } from "./connect.ts";
import { endEvent, failStream } from "./live.ts";
import type { LiveProcess, LiveProcesses } from "./live.ts";
import { absolute } from "./paths.ts";
import type { GuestUser } from "./users.ts";

const size = z.object({
  cols: z.int().min(0).max(65_535).optional(),
  rows: z.int().min(0).max(65_535).optional(),
});
const startSchema = z.object({
  process: z.object({
    cmd: z.string().min(1).max(4096),
    args: z
      .array(z.string().max(1 << 21))
      .max(10_000)
      .default([]),
    envs: z.record(z.string().max(4096), z.string().max(131_072)).default({}),
    cwd: z.string().max(4096).optional(),
  }),
  pty: z.object({ size: size.optional() }).optional(),
  tag: z.string().max(256).optional(),
  stdin: z.boolean().optional(),
});
const selectorSchema = z.object({
  process: z.object({ pid: z.int().optional(), tag: z.string().max(256).optional() }),
});
const updateSchema = z.object({ pty: z.object({ size }).optional() });
const inputSchema = z.object({ stdin: z.base64().optional(), pty: z.base64().optional() });

/** What every call of a sandbox's data plane works with. */
export interface EnvdContext {
  vm: Vm;
  user: GuestUser;
  /** Names of the sandbox that commands find in their environment. */
  env: string[];
  processes: LiveProcesses;
}

const DEFAULT_ROWS = 24;
const DEFAULT_COLS = 80;

const SIGNALS: Record<string, string> = {
  SIGNAL_SIGKILL: "SIGKILL",
  SIGNAL_SIGTERM: "SIGTERM",
  "9": "SIGKILL",
  "15": "SIGTERM",
};

/** What clients run all commands with; images without it have the other. */
const BASH = "/bin/bash";
const SH = "/bin/sh";

/** A stream whose label is a client's tag. */
const TAG = "tag:";

/** Running commands of a guest that clients of this protocol can reach. */
async function running(vm: Vm): Promise<StreamInfo[]> {
  const streams = await listStreams(vm.transport);
  return streams.filter(({ kind, running: on, detach }) => kind === "exec" && on && detach);
}

/** The command that a selector names. @throws not_found */
async function select(vm: Vm, body: unknown): Promise<StreamInfo> {
  const { process } = validate(selectorSchema, body, "process");
  const found = (await running(vm)).find(({ pid, label }) =>
    process.pid === undefined ? label === TAG + (process.tag ?? "") : pid === process.pid,
  );
  if (found !== undefined) return found;
  const what = process.pid === undefined ? `tag ${process.tag}` : `pid ${process.pid}`;
  throw new E2bError("not_found", `process with ${what} not found`);
}

/**
 * Hand a command's output to a client until it ends or the client leaves.
 * @param begin finds or starts the command, and has the client listen to it before it can print
 */
async function carry(
  request: IncomingMessage,
  response: ServerResponse,
  vm: Vm,
  begin: (listen: (live: LiveProcess) => LiveProcess) => Promise<LiveProcess> | LiveProcess,
): Promise<void> {
  const replies = new ReplyStream(request, response, { event: { keepalive: {} } });
  // Output must not overtake the start event.
  const opened = Promise.withResolvers<void>();
  let leave: () => void = () => undefined;
  const gone = new Promise<never>((_, reject) => {
    replies.signal.addEventListener("abort", () => reject(replies.signal.reason as Error));
  });
  gone.catch(() => undefined);
  try {
    const live = await begin((one) => {
      leave = one.listen({
        output: async (name, bytes) => {
          await Promise.race([opened.promise, gone]);
          const field = one.tty ? "pty" : name;
          await replies.send({ event: { data: { [field]: bytes.toString("base64") } } });
        },
      });
      return one;
    });
    const pid = await Promise.race([live.pid, gone]);
    await replies.send({ event: { start: { pid } } });
    opened.resolve();
    const exit = await Promise.race([live.stream.exit, gone]);
    await replies.send({ event: { end: await endEvent(vm, exit) } });
    replies.end();
  } catch (error) {
    await failStream(vm, replies, error);
  } finally {
    // Whoever waits for the start event waits in vain otherwise.
    opened.resolve();
    leave();
  }
}

async function start(
  request: IncomingMessage,
  response: ServerResponse,
  context: EnvdContext,
): Promise<void> {
  const { vm, user } = context;
  const first = await requestMessages(request).next();
  const body = validate(startSchema, first.value ?? {}, "process to start");
  const { cmd, args, envs, cwd } = body.process;
  const { pty } = body;
  const options: ExecOptions = {
    env: [...context.env, ...Object.entries(envs).map(([key, value]) => `${key}=${value}`)],
    workdir: absolute(cwd ?? "", user),
    user: user.name,
    stdin: pty !== undefined || body.stdin !== false,
    label: body.tag === undefined ? "" : TAG + body.tag,
    ...(pty === undefined
      ? {}
      : { tty: { rows: pty.size?.rows || DEFAULT_ROWS, cols: pty.size?.cols || DEFAULT_COLS } }),
  };
  await carry(request, response, vm, async (listen) => {
    const live = listen(context.processes.start(vm, [cmd, ...args], options));
    if (cmd !== BASH) return live;
    try {
      await live.pid;
      return live;
    } catch (error) {
      if (!(error instanceof VmsanError) || error.code !== "ERR_AGENT_NOT_FOUND") throw error;
      return listen(context.processes.start(vm, [SH, ...args], options));
    }
  });
}

async function connect(
  request: IncomingMessage,
  response: ServerResponse,
  { vm, processes }: EnvdContext,
): Promise<void> {
  const first = await requestMessages(request).next();
  const body = first.value ?? {};
  await carry(request, response, vm, async (listen) =>
    listen(processes.of(vm, await select(vm, body))),
  );
}

const unary: Record<
  string,
  (context: EnvdContext, body: Record<string, unknown>) => Promise<object>
> = {
  List: async ({ vm }) => ({
    processes: (await running(vm)).map(({ argv, pid, label }) => ({
      config: { cmd: argv[0] ?? "", args: argv.slice(1), envs: {} },
      pid,
      ...(label.startsWith(TAG) ? { tag: label.slice(TAG.length) } : {}),
    })),
  }),
  SendInput: async ({ vm, processes }, body) => {
    const live = processes.of(vm, await select(vm, body));
    const { stdin, pty } = validate(inputSchema, body["input"], "input");
    await live.write(Buffer.from(stdin ?? pty ?? "", "base64"));
    return {};
  },
  CloseStdin: async ({ vm, processes }, body) => {
    processes.of(vm, await select(vm, body)).stream.stdin.end();
    return {};
  },
  SendSignal: async ({ vm }, body) => {
    const info = await select(vm, body);
    const signal = SIGNALS[String(body["signal"])];
    if (signal === undefined)
      throw new E2bError("unimplemented", `invalid signal: ${String(body["signal"])}`);
    await signalStream(vm.transport, info.id, signal, true);
    return {};
  },
  Update: async ({ vm, processes }, body) => {
    const { pty } = validate(updateSchema, body, "terminal");
    const { stream } = processes.of(vm, await select(vm, body));
    if (pty !== undefined) {
      stream.resize(pty.size.rows ?? DEFAULT_ROWS, pty.size.cols ?? DEFAULT_COLS);
    }
    return {};
  },
};

const streams: Record<string, typeof start> = { Start: start, Connect: connect };

/** All methods of the service. */
export const processMethods: readonly string[] = [...Object.keys(streams), ...Object.keys(unary)];

/** Answer a call of the service. @param method the part of the path behind the service's name */
export async function processService(
  request: IncomingMessage,
  response: ServerResponse,
  method: string,
  context: EnvdContext,
): Promise<void> {
  const stream = Object.hasOwn(streams, method) ? streams[method] : undefined;
  if (stream !== undefined) return await stream(request, response, context);
  const call = Object.hasOwn(unary, method) ? unary[method] : undefined;
  if (call === undefined) throw new E2bError("unimplemented", `no method ${method.slice(0, 80)}`);
  sendUnary(response, await call(context, parseObject(await readBody(request))));
}
