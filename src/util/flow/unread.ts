/** Requests that are answered before all of them has come. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";

/** How long a client may go on sending what nobody reads, in milliseconds. */
const LINGER_MS = 30_000;

/** What Node.js itself calls for a body that nobody has begun to read: the parser then drops what comes, whatever has become of the stream. */
type Dumpable = IncomingMessage & { _dump?: () => void };

/** What ends a connection whose client goes on for too long; one each, since of one request at a time some is yet to come. */
const timers = new WeakMap<Socket, NodeJS.Timeout>();

/** Give a connection's client so long for the rest of a request. */
function allow(request: IncomingMessage, socket: Socket): void {
  const earlier = timers.get(socket);
  if (earlier === undefined) socket.once("close", () => clearTimeout(timers.get(socket)));
  else clearTimeout(earlier);
  const late = setTimeout(() => {
    if (!request.complete) socket.destroy();
  }, LINGER_MS);
  timers.set(socket, late.unref());
}

/** Until when somebody takes what comes of a request, whether it has been answered or not. */
const taken = new WeakMap<IncomingMessage, Promise<unknown>>();

/** Have what comes of a request dropped only once this is fulfilled, which it has to be at the end of its connection at the latest. */
export function takenUntil(request: IncomingMessage, end: Promise<unknown>): void {
  taken.set(request, end);
}

/**
 * Drop what has not been read of a request once it has been answered. Many clients look for an answer only when they have sent
 * everything: one that is held up would see its connection broken instead.
 */
export function dropUnread(request: IncomingMessage, response: ServerResponse): void {
  const { socket } = request;
  // An HTTP/2 response says that it has finished only once its stream has closed.
  const answer = "stream" in response ? (response.stream as ServerHttp2Stream) : response;
  // Before Node.js itself, which then closes the connection of a client that wants it closed.
  answer.prependOnceListener("finish", () => {
    if (request.complete || socket.destroyed) return;
    if (!("stream" in request)) closeWhenComplete(request, socket);
    const end = taken.get(request);
    if (end === undefined) drop(request, socket);
    else void end.then(() => request.complete || socket.destroyed || drop(request, socket));
  });
}

/** Close no connection in the middle of a request: its client gets the end of ours, and sends the end of its own. */
function closeWhenComplete(request: IncomingMessage, socket: Socket): void {
  socket.destroySoon = () => {
    socket.end();
    request.once("end", () => socket.destroy());
  };
}

function drop(request: IncomingMessage, socket: Socket): void {
  request.unpipe();
  // A stream of HTTP/2 holds no other up.
  if ("stream" in request) {
    const stream = request.stream as ServerHttp2Stream;
    request.resume();
    const late = setTimeout(() => stream.close(), LINGER_MS);
    late.unref();
    stream.once("close", () => clearTimeout(late));
    return;
  }
  // By its parser: what a pipeline or a loop has given up cannot be read any more.
  (request as Dumpable)._dump?.();
  socket.resume();
  allow(request, socket);
}
