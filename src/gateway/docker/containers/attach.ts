/** Clients that are attached to a container's main process. */
import type { Duplex } from "node:stream";
import type { Call } from "../http/route.ts";
import { pushFrame } from "../http/frames.ts";
import { readPieces } from "../../../containers/logs/reader.ts";
import type { Container } from "./container.ts";
import { parseDetachKeys, pumpInput } from "./input.ts";
import type { Sink } from "../../../containers/run.ts";

/** Attach a client, also to a container that is yet to be started. */
export async function attach(call: Call, container: Container): Promise<void> {
  const { Tty: tty } = container.record.config;
  const asks = (name: string): boolean => call.query.flag(name);
  await serve(call, container, { duplex: (await call.hijack()).accept(tty), raw: tty, asks });
}

/**
 * The same over a WebSocket, whose messages are the bytes of both outputs as they come. Older clients name no streams
 * and mean all.
 */
export async function attachWebSocket(call: Call, container: Container): Promise<void> {
  const { query } = call;
  const named = ["stdin", "stdout", "stderr"].some((name) => query.has(name));
  const asks = (name: string): boolean => !named || query.flag(name);
  await serve(call, container, { duplex: await call.webSocket(), raw: true, asks });
}

/** A client's connection. */
interface Attached {
  duplex: Duplex;
  /** Its output has no headers. */
  raw: boolean;
  /** Whether it wants a stream, by its name. */
  asks: (name: string) => boolean;
}

/** Serve an attached client. */
async function serve(
  call: Call,
  container: Container,
  { duplex, raw, asks }: Attached,
): Promise<void> {
  const { query } = call;
  const { Tty: tty, OpenStdin: open, StdinOnce: once } = container.record.config;
  const wanted = { 1: asks("stdout"), 2: asks("stderr") };
  duplex.on("error", () => duplex.destroy());
  if (query.flag("logs") && container.log !== undefined) {
    for await (const { stream, bytes } of readPieces(container.log.dir)) {
      if (wanted[stream]) await pushFrame(duplex, stream, Buffer.from(bytes), raw);
    }
  }
  if (!query.flag("stream")) {
    duplex.end();
    return;
  }
  container.tell("attach");
  const sink: Sink = {
    output: async (stream, bytes) => {
      if (wanted[stream]) await pushFrame(duplex, stream, bytes, raw);
    },
    end: () => {
      container.sinks.delete(sink);
      duplex.end();
      // Its half is over with the container; a client that goes on sending talks to nobody.
      duplex.resume();
    },
  };
  container.sinks.add(sink);
  const stdin = asks("stdin") && open;
  duplex.once("close", () => {
    container.sinks.delete(sink);
  });
  if (!stdin) {
    duplex.resume();
    return;
  }
  const input = await container.input();
  if (input === undefined) return;
  pumpInput(duplex, input, {
    once: once && !tty,
    ...(tty ? { keys: parseDetachKeys(query.text("detachKeys")) } : {}),
    onLeave: () => {
      container.sinks.delete(sink);
      container.tell("detach");
      duplex.end();
    },
  });
  // A client that is cut off will send no end.
  duplex.once("close", () => {
    if (once && !tty && input.writable) input.end();
  });
}
