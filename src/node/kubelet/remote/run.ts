/** What a session is for: a command of its own in a pod, or the pod's main process. */
import type { Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { OutputNumber } from "../../../agent/frames.ts";
import { VmsanError } from "../../../model/errors.ts";
import type { RunningPod } from "../../pods/running.ts";
import { wordsOf } from "../words.ts";
import { SUCCESS, exitStatus, failureStatus } from "./session.ts";
import type { RemoteSession, SessionWish } from "./session.ts";

/** What shells say of a command that cannot be started. */
const NOT_STARTED: Record<string, number> = {
  ERR_AGENT_NOT_FOUND: 127,
  ERR_AGENT_NOT_EXECUTABLE: 126,
};

/** How long a client may take to tell its terminal's size, in milliseconds; most tell it at once. */
const SIZE_MS = 250;

/** The size that a terminal begins with: the client's, so that what runs in it draws once. */
async function firstSize(session: RemoteSession): Promise<{ rows: number; cols: number }> {
  return await new Promise((resolve) => {
    const timer = setTimeout(() => resolve({ rows: 24, cols: 80 }), SIZE_MS);
    session.onResize((rows, cols) => {
      clearTimeout(timer);
      resolve({ rows, cols });
    });
  });
}

/** Hand on what a client sends; its end is the input's, where it is to be. */
async function feed(session: RemoteSession, input: Writable, end: boolean): Promise<void> {
  if (session.stdin === undefined) return;
  // Broken off when the command has ended or the client has gone, both of which are told otherwise.
  await pipeline(session.stdin, input, { end }).catch(() => undefined);
}

/** Hand on output that a client wants; the buffer is its caller's again afterwards. */
function outputFor(session: RemoteSession, wish: SessionWish) {
  return async (stream: OutputNumber, bytes: Buffer): Promise<void> => {
    if (stream === 1 ? wish.stdout : wish.stderr && !wish.tty) await session.output(stream, bytes);
  };
}

/**
 * Run a command for a client. One whose client goes away is ended with all that it has started: nobody is there to
 * see or to end it.
 */
export async function runCommand(
  session: RemoteSession,
  pod: RunningPod,
  argv: readonly string[],
  wish: SessionWish,
): Promise<void> {
  const output = outputFor(session, wish);
  try {
    const vm = await pod.guest();
    const { env, user, workdir } = pod.exec;
    const tty = wish.tty ? { ...(await firstSize(session)), term: "xterm" } : undefined;
    const stream = vm.spawn(
      argv,
      {
        env,
        stdin: wish.stdin,
        ...(user === undefined ? {} : { user }),
        ...(workdir === undefined ? {} : { workdir }),
        ...(tty === undefined ? {} : { tty }),
      },
      {
        onStdout: async (bytes) => await output(1, bytes),
        onStderr: async (bytes) => await output(2, bytes),
        signal: session.gone,
      },
    );
    session.onResize((rows, cols) => stream.resize(rows, cols));
    void feed(session, stream.stdin, true);
    const { exitCode } = await stream.exit;
    await session.end(exitCode === 0 ? SUCCESS : exitStatus(exitCode));
  } catch (error) {
    if (session.gone.aborted) return;
    await tellFailure(session, error, argv[0] ?? "", wish);
  }
}

async function tellFailure(
  session: RemoteSession,
  error: unknown,
  program: string,
  wish: SessionWish,
): Promise<void> {
  const said = wordsOf(error, `Cannot run ${program}`);
  const status = error instanceof VmsanError ? NOT_STARTED[error.code] : undefined;
  if (status === undefined) {
    await session.end(failureStatus(said));
    return;
  }
  // As a shell does: scripts look at the status, people at the words.
  await session.output(wish.stderr && !wish.tty ? 2 : 1, Buffer.from(`${said}\n`));
  await session.end(exitStatus(status));
}

/** Whether the first client's end of input is the main process's own. */
function endsInput(pod: RunningPod): boolean {
  type Containers = { spec?: { containers?: { name?: string; stdinOnce?: boolean }[] } };
  const { spec } = pod.pod as Containers;
  return spec?.containers?.find(({ name }) => name === pod.container)?.stdinOnce === true;
}

/** Attach a client to a pod's main process, until that ends or the client goes away. */
export async function attachClient(
  session: RemoteSession,
  pod: RunningPod,
  wish: SessionWish,
): Promise<void> {
  const output = outputFor(session, wish);
  const over = new AbortController();
  const leave = pod.attach({
    output: async (stream, bytes) => {
      if (!session.gone.aborted) await output(stream, bytes);
    },
    end: () => over.abort(),
  });
  try {
    session.onResize((rows, cols) => pod.resize(rows, cols));
    const { stdin } = pod;
    if (stdin !== undefined) void feed(session, stdin, endsInput(pod));
    await aborted(AbortSignal.any([over.signal, session.gone]));
    if (over.signal.aborted) await session.end(SUCCESS);
  } finally {
    leave();
  }
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) =>
    signal.addEventListener("abort", () => resolve(), { once: true }),
  );
}
