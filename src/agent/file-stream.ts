/** Streams that carry files: whose permissions hold, what the agent says at the end. */
import type { Readable } from "node:stream";
import { VmsanError } from "../model/errors.ts";
import type { GuestStream, StreamOptions } from "./streams.ts";
import { startStream } from "./streams.ts";
import type { StreamSpec } from "./spec.ts";
import type { GuestTransport } from "./transport.ts";

/** Whose permissions hold in the guest, and how to give up. */
export interface FileOptions {
  /** Default root. */
  user?: string;
  /** What is made is the user's, but permissions do not hold for it. */
  override?: boolean;
  signal?: AbortSignal;
}

/** Run as that user. */
export function withUser(spec: StreamSpec, { user, override }: FileOptions): StreamSpec {
  return {
    ...spec,
    ...(user === undefined ? {} : { user }),
    ...(override === true ? { override } : {}),
  };
}

/** End with that signal. */
export function withSignal({ signal }: FileOptions): StreamOptions {
  return signal === undefined ? {} : { signal };
}

/** Wait for the agent's verdict. */
export async function checkExit(stream: GuestStream, action: string, said = ""): Promise<void> {
  const exit = await stream.exit;
  if (exit.error !== undefined) throw new VmsanError(exit.error);
  if (exit.exitCode === 0) return;
  throw new VmsanError({
    code: "ERR_AGENT_FILE",
    message: action,
    why: said.trim().slice(0, 2000) || `The agent ended it with status ${exit.exitCode}.`,
    fix: "Check the path and its permissions in the guest.",
  });
}

/** Write chunks to a stream's input as fast as it takes them. */
export async function feed(stream: GuestStream, source: AsyncIterable<Buffer>): Promise<void> {
  let over = false;
  const ended = stream.exit.then(
    () => void (over = true),
    () => void (over = true),
  );
  try {
    for await (const chunk of source) {
      // The guest has refused it: its exit says why.
      if (over) return;
      if (stream.stdin.write(chunk)) continue;
      await Promise.race([new Promise((resolve) => stream.stdin.once("drain", resolve)), ended]);
    }
  } catch (error) {
    // An input that is cut short must not look like one that has ended.
    stream.signal("SIGKILL", true);
    await ended;
    throw error;
  }
  stream.stdin.end();
}

/** How a file is read. */
export interface ReadOptions extends FileOptions {
  /** A symlink in its place is an error. */
  noFollow?: boolean;
}

/**
 * One file's bytes. The promise resolves when all of them have been taken.
 * @param onData may return a promise to slow the guest down
 */
export async function readFile(
  transport: GuestTransport,
  path: string,
  onData: (bytes: Buffer) => void | Promise<void>,
  options: ReadOptions = {},
): Promise<void> {
  const noFollow = options.noFollow === true ? { noFollow: true } : {};
  const spec = withUser({ kind: "read", path, ...noFollow }, options);
  const stream = startStream(transport, spec, { ...withSignal(options), onStdout: onData });
  await checkExit(stream, `Cannot read ${path} in the guest`);
}

/**
 * One file's bytes as a stream, once it is open; it fails when the file could not be read to its end.
 * @throws ERR_AGENT_FILE when it cannot be opened
 */
export async function openFile(
  transport: GuestTransport,
  path: string,
  options: FileOptions = {},
): Promise<Readable> {
  const stream = startStream(
    transport,
    withUser({ kind: "read", path }, options),
    withSignal(options),
  );
  const { stdout } = stream;
  const verdict = checkExit(stream, `Cannot read ${path} in the guest`);
  verdict.catch((error: unknown) => stdout.destroy(error as Error));
  stdout.on("error", () => undefined);
  const readable = new Promise<void>((resolve) => {
    stdout.once("readable", resolve);
  });
  await Promise.race([readable, verdict]);
  // At its end without a byte: empty, or never opened, which only the verdict tells.
  if (stdout.readableLength === 0) await verdict;
  stdout.once("close", () => {
    if (!stdout.readableEnded) stream.signal("SIGKILL", true);
  });
  return stdout;
}

/** How a file is written. */
export interface WriteOptions extends FileOptions {
  mode?: number;
  /** Cut and fill the old file, whose hard links and watchers then stay with it; not atomic. */
  inPlace?: boolean;
  /** The file's extended attributes below a prefix (`user.…`) become exactly these. */
  attributes?: { prefix: string; values: ReadonlyMap<string, Buffer> };
}

/** Make one file of bytes; its name appears when all of them are there. */
export async function writeFile(
  transport: GuestTransport,
  path: string,
  source: AsyncIterable<Buffer>,
  options: WriteOptions = {},
): Promise<void> {
  const { mode, inPlace, attributes } = options;
  const spec: StreamSpec = {
    kind: "write",
    path,
    stdin: true,
    ...(mode === undefined ? {} : { mode }),
    ...(inPlace === true ? { inPlace } : {}),
    ...(attributes === undefined
      ? {}
      : {
          attributes: {
            prefix: attributes.prefix,
            values: Object.fromEntries(
              [...attributes.values].map(([name, value]) => [name, value.toString("base64")]),
            ),
          },
        }),
  };
  const stream = startStream(transport, withUser(spec, options), withSignal(options));
  await feed(stream, source);
  await checkExit(stream, `Cannot write ${path} in the guest`);
}
