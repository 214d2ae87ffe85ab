/** Events about commands, read from the frames that pass between client and agent. */
import type { Duplex } from "node:stream";
import { waitStream } from "../agent/commands.ts";
import { FrameDecoder, FrameType, decodeJson } from "../agent/frames.ts";
import { isStreamId, parseExit } from "../agent/spec.ts";
import type { StreamExit } from "../agent/spec.ts";
import { messageOf } from "../model/errors.ts";
import type { Sandboxes } from "../sandbox/sandboxes.ts";

/** A command as its events tell of it: no argument but the program, since others may be secrets. */
interface Command {
  exec: string;
  program: string;
  label?: string;
}

/** The command that a START asks for; undefined for what is no command. */
function commandOf(payload: Buffer): Command | undefined {
  const spec = decodeJson(FrameType.START, payload);
  const { id, kind, argv, label } = spec;
  if (kind !== "exec" || typeof id !== "string" || !isStreamId(id)) return undefined;
  const program: unknown = Array.isArray(argv) ? argv[0] : undefined;
  return {
    exec: id,
    program: typeof program === "string" ? program : "",
    ...(typeof label === "string" && label !== "" ? { label } : {}),
  };
}

/** What the agent's frames say of a command's start and end. */
function readReplies(started: () => void, ended: (exit: StreamExit) => void): FrameDecoder {
  return new FrameDecoder({
    data: () => undefined,
    frame: (type, payload) => {
      // One that was there already was told of when it began.
      if (type === FrameType.ATTACHED && decodeJson(type, payload)["created"] === true) started();
      if (type === FrameType.EXIT) ended(parseExit(decodeJson(type, payload)));
    },
  });
}

/**
 * Tell of a command that is started on this connection, and of its end, whether the connection lasts
 * until then or not. What passes is only looked at.
 */
export function watchCommand(
  sandboxes: Sandboxes,
  ref: string,
  client: Duplex,
  guest: Duplex,
): void {
  const { record } = sandboxes.find(ref);
  let command: Command | undefined;
  let state: "new" | "running" | "ended" = "new";
  const ended = ({ exitCode, signal, timedOut, durationMs }: StreamExit): void => {
    if (command === undefined || state !== "running") return;
    state = "ended";
    const seconds = (durationMs ?? 0) / 1000;
    const data = { ...command, exitCode, signal, timedOut: timedOut ? true : undefined, seconds };
    sandboxes.events.vm("exec.ended", record, data);
  };
  const replies = readReplies(() => {
    if (command === undefined || state !== "new") return;
    state = "running";
    sandboxes.events.vm("exec.started", record, { ...command });
  }, ended);
  const requests = new FrameDecoder({
    data: () => undefined,
    frame: (type, payload) => {
      client.off("data", onRequest);
      if (type === FrameType.START) command = commandOf(payload);
      if (command === undefined) guest.off("data", onReply);
    },
  });
  /** Frames that make no sense are their reader's affair. */
  const lookedAt = (decoder: FrameDecoder, stream: Duplex) => {
    const look = (chunk: Buffer): void => {
      try {
        decoder.push(chunk);
      } catch (error) {
        stream.off("data", look);
        sandboxes.log.info(`${record.id}: a stream that cannot be read: ${messageOf(error)}`);
      }
    };
    stream.on("data", look);
    return look;
  };
  const onRequest = lookedAt(requests, client);
  const onReply = lookedAt(replies, guest);
  guest.once("close", () => {
    if (command === undefined || state !== "running") return;
    // Its client has left it, or will come back on another connection.
    void endOf(sandboxes, record.id, command.exec).then((exit) => {
      if (exit !== undefined) ended(exit);
    });
  });
}

/** How a command ends, also in a VM that sleeps meanwhile; undefined when the VM ends first. */
async function endOf(
  sandboxes: Sandboxes,
  vmId: string,
  exec: string,
): Promise<StreamExit | undefined> {
  const forever = new AbortController().signal;
  for (;;) {
    try {
      return (await waitStream(sandboxes.channel(vmId), exec)).exit;
    } catch (error) {
      const entry = sandboxes.entries.get(vmId);
      if (entry?.record.status !== "suspended") {
        sandboxes.log.info(`${vmId}: no end of ${exec} was seen: ${messageOf(error)}`);
        return undefined;
      }
      await sandboxes.change(entry, forever);
    }
  }
}
