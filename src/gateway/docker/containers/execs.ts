/** Further commands in running containers. */
import { randomBytes } from "node:crypto";
import type { z } from "zod";
import type { GuestStream } from "../../../agent/streams.ts";
import { mergeEnv } from "../../../client/guest/commands.ts";
import { withGroups } from "../../../containers/user.ts";
import { execSchema, execStartSchema } from "../../../schema/docker.ts";
import type { HostConfig } from "../../../schema/docker.ts";
import { DockerError, startFailure } from "../errors.ts";
import { readBody } from "../http/bodies.ts";
import { pushFrame } from "../http/frames.ts";
import type { Hijack } from "../http/wire.ts";
import type { Container } from "./container.ts";
import { parseDetachKeys, pumpInput } from "./input.ts";

/** Most that are remembered; the oldest ended ones go. */
const KEPT = 4096;

/** One command. */
export interface Exec {
  id: string;
  container: Container;
  argv: string[];
  env: string[];
  user: string;
  workdir: string;
  tty: boolean;
  attach: { stdin: boolean; stdout: boolean; stderr: boolean };
  detachKeys: string;
  size: { rows: number; cols: number };
  state: "created" | "running" | "ended";
  exitCode: number | null;
  pid: number;
  stream?: GuestStream;
}

/** The commands of one gateway. */
export class Execs {
  private readonly known = new Map<string, Exec>();

  /** Note a command that is to be run. @throws 400, 409 when the container does not run */
  async create(container: Container, given: unknown): Promise<Exec> {
    const body = readBody(execSchema, given, "request to run a command");
    const argv = typeof body.Cmd === "string" ? [body.Cmd] : (body.Cmd ?? []);
    if (argv.length === 0) throw new DockerError(400, "No exec command specified");
    await container.runningGuest();
    const [rows, cols] = body.ConsoleSize ?? [];
    const { GroupAdd: groups } = container.record.hostConfig as HostConfig;
    const exec: Exec = {
      id: randomBytes(32).toString("hex"),
      container,
      argv,
      env: mergeEnv(body.Env ?? []),
      // Without one it is the container's, which has its groups already.
      user: body.User ? withGroups(body.User, groups ?? []) : "",
      workdir: body.WorkingDir ?? "",
      tty: body.Tty ?? false,
      attach: {
        stdin: body.AttachStdin ?? false,
        stdout: body.AttachStdout ?? false,
        stderr: body.AttachStderr ?? false,
      },
      detachKeys: body.DetachKeys ?? "",
      size: { rows: rows || 24, cols: cols || 80 },
      state: "created",
      exitCode: null,
      pid: 0,
    };
    this.known.set(exec.id, exec);
    if (this.known.size > KEPT) {
      const old = [...this.known.values()].find(({ state }) => state === "ended");
      if (old !== undefined) this.known.delete(old.id);
    }
    tellOf(exec, "exec_create");
    return exec;
  }

  /** @throws 404 */
  find(id: string): Exec {
    const exec = this.known.get(id);
    if (exec !== undefined && !exec.container.removed) return exec;
    throw new DockerError(404, `No such exec instance: ${id.slice(0, 100)}`);
  }

  /** Run a command: its client has the connection until it ends, unless it is to go on alone. */
  async start(hijack: Hijack, exec: Exec): Promise<void> {
    const body = readBody(execStartSchema, hijack.body, "request to start a command");
    const { container, tty } = exec;
    const vm = await container.runningGuest();
    if (exec.state !== "created") return await startedBefore(hijack, exec, body);
    const [rows, cols] = body.ConsoleSize ?? [];
    if (rows && cols) exec.size = { rows, cols };
    const detached = body.Detach === true;
    // What this request says of a terminal, not the command's own: one with a terminal may be read with headers.
    const raw = body.Tty === true;
    const duplex = detached ? undefined : hijack.accept(raw);
    duplex?.on("error", () => duplex.destroy());
    const wanted = { 1: exec.attach.stdout, 2: exec.attach.stderr };
    const output =
      (number: 1 | 2) =>
      async (bytes: Buffer): Promise<void> => {
        if (duplex !== undefined && wanted[number]) {
          await pushFrame(duplex, number, Buffer.from(bytes), raw);
        }
      };
    exec.state = "running";
    tellOf(exec, "exec_start");
    const stream = vm.spawn(
      exec.argv,
      {
        env: exec.env,
        stdin: !detached && exec.attach.stdin,
        detach: detached,
        ...(exec.user === "" ? {} : { user: exec.user }),
        ...(exec.workdir === "" ? {} : { workdir: exec.workdir }),
        ...(tty ? { tty: { ...exec.size, term: "xterm" } } : {}),
      },
      { onStdout: output(1), onStderr: output(2) },
    );
    exec.stream = stream;
    const over = this.ended(exec, stream, async (message) => {
      if (duplex !== undefined) await pushFrame(duplex, 2, Buffer.from(`${message}\r\n`), raw);
    });
    if (duplex === undefined) {
      try {
        await stream.started;
      } catch (error) {
        const { message } = startFailure(error, exec.argv[0] ?? "");
        throw new DockerError(400, message, error);
      }
      exec.pid = stream.pid ?? 0;
      hijack.respond(200);
      return;
    }
    stream.started.then(
      () => (exec.pid = stream.pid ?? 0),
      () => undefined,
    );
    if (exec.attach.stdin) {
      pumpInput(duplex, stream.stdin, {
        once: !tty,
        ...(tty ? { keys: parseDetachKeys(exec.detachKeys) } : {}),
        onLeave: () => duplex.end(),
      });
    } else duplex.resume();
    await over;
    duplex.end();
    duplex.resume();
  }

  /** Note how it ended, before its client learns that it has. */
  private async ended(
    exec: Exec,
    stream: GuestStream,
    complain: (message: string) => Promise<void>,
  ): Promise<void> {
    try {
      const { exitCode } = await stream.exit;
      exec.exitCode = exitCode;
    } catch (error) {
      const { code, message } = startFailure(error, exec.argv[0] ?? "");
      exec.exitCode = code;
      await complain(
        message.replace("OCI runtime create failed", "OCI runtime exec failed: exec failed"),
      );
    }
    exec.state = "ended";
    delete exec.stream;
    exec.container.tell("exec_die", { execID: exec.id, exitCode: String(exec.exitCode) });
  }
}

/** Say that something has happened to a command. */
function tellOf({ id, container, argv }: Exec, action: string): void {
  container.tell(`${action}: ${argv.join(" ").slice(0, 500)}`, { execID: id });
}

/**
 * Answer who starts a command again. As with the engine its own words are the stream's, not the status's: compose starts
 * each command of `watch` twice, and looks at the status alone. @throws 409 where there is no stream
 */
async function startedBefore(
  hijack: Hijack,
  { id }: Exec,
  { Detach: detach, Tty: tty }: z.infer<typeof execStartSchema>,
): Promise<void> {
  const message = `exec command ${id} is already running or has ended`;
  if (detach === true) throw new DockerError(409, message);
  const duplex = hijack.accept(tty === true);
  duplex.on("error", () => duplex.destroy());
  await pushFrame(duplex, 2, Buffer.from(`${message}\r\n`), tty === true);
  duplex.end();
  duplex.resume();
}

/** Give a command's terminal a size. */
export function resizeExec(exec: Exec, rows: number, cols: number): void {
  if (rows < 1 || cols < 1) return;
  exec.size = { rows, cols };
  exec.stream?.resize(rows, cols);
}

/** A command as clients see it. */
export function execView(exec: Exec): object {
  const [entrypoint = "", ...rest] = exec.argv;
  return {
    ID: exec.id,
    Running: exec.state === "running",
    ExitCode: exec.exitCode,
    ProcessConfig: {
      tty: exec.tty,
      entrypoint,
      arguments: rest,
      privileged: false,
      ...(exec.user === "" ? {} : { user: exec.user }),
    },
    OpenStdin: exec.attach.stdin,
    OpenStderr: exec.attach.stderr,
    OpenStdout: exec.attach.stdout,
    CanRemove: exec.state === "ended",
    ContainerID: exec.container.id,
    DetachKeys: exec.detachKeys,
    Pid: exec.pid,
  };
}
