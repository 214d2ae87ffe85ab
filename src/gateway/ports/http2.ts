/** HTTP/2 from end to end: requests that HTTP/1.1 cannot carry (gRPC) go into guests as they are. */
import { connect, constants } from "node:http2";
import type {
  ClientHttp2Session,
  Http2ServerResponse,
  Http2Session,
  IncomingHttpHeaders,
  OutgoingHttpHeaders,
  ServerHttp2Stream,
} from "node:http2";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { pipeline } from "node:stream/promises";
import { VmsanError, messageOf } from "../../model/errors.ts";

/** Whether a request needs HTTP/2 on its whole way. */
export function needsHttp2(request: IncomingMessage): boolean {
  const { headers, httpVersionMajor } = request;
  return httpVersionMajor === 2 && /^application\/grpc\b/i.test(headers["content-type"] ?? "");
}

/** Sessions into guests that a client's connection has open, by VM and port. */
const sessions = new WeakMap<Http2Session, Map<string, Promise<ClientHttp2Session>>>();

/** The session of a client's connection to a port; it ends with that connection. */
async function sessionTo(
  client: Http2Session,
  name: string,
  dial: () => Promise<Duplex>,
): Promise<ClientHttp2Session> {
  const open = sessions.get(client) ?? new Map<string, Promise<ClientHttp2Session>>();
  sessions.set(client, open);
  const known = open.get(name);
  if (known !== undefined) return await known;
  const made = (async () => {
    const connection = await dial();
    const session = connect("http://guest", { createConnection: () => connection });
    const forget = (): void => void open.delete(name);
    session.once("close", forget).once("goaway", forget);
    // Its streams report it.
    session.on("error", forget);
    if (client.destroyed) session.destroy();
    client.once("close", () => session.destroy());
    return session;
  })();
  open.set(name, made);
  made.catch(() => open.delete(name));
  return await made;
}

/** Fields that HTTP/2 has no place for (RFC 9113, section 8.2.2). */
const OF_CONNECTION = new Set([
  "connection",
  "http2-settings",
  "keep-alive",
  "proxy-connection",
  "te",
  "transfer-encoding",
  "upgrade",
]);

/** Headers of an answer or its trailers, without those that are of the connection alone. */
function answerHeaders(headers: IncomingHttpHeaders): OutgoingHttpHeaders {
  // A guest may send what Node.js refuses to send on, by throwing.
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !OF_CONNECTION.has(name)));
}

/** What a request into a guest consists of. */
export interface Http2Onward {
  /** Names the VM and the port. */
  name: string;
  headers: OutgoingHttpHeaders;
  /** What the guest sees as the host. */
  authority: string;
  dial: () => Promise<Duplex>;
}

/** Hand a request and its answer through, trailers included. */
export async function proxyHttp2(
  request: IncomingMessage,
  response: ServerResponse,
  onward: Http2Onward,
): Promise<void> {
  const { stream } = response as unknown as Http2ServerResponse & { stream: ServerHttp2Stream };
  const client = stream.session;
  if (client === undefined) return;
  const session = await sessionTo(client, onward.name, onward.dial);
  const up = session.request(
    {
      ...onward.headers,
      // The one of these that is for the next server as well: it may send trailers.
      ...(request.headers.te === "trailers" ? { te: "trailers" } : {}),
      ":method": request.method ?? "POST",
      ":path": request.url ?? "/",
      ":scheme": "http",
      ":authority": onward.authority,
    },
    { endStream: false },
  );
  stream.once("close", () => up.close(constants.NGHTTP2_CANCEL));
  // Not by pipeline(), which would leave a request that it has given up where it is.
  request.pipe(up);
  const sent = new Promise<void>((resolve) => {
    for (const event of ["end", "close"]) request.once(event, () => resolve());
  });
  // A port that has answered early takes no more: the rest of the request is dropped.
  up.once("close", () => request.resume());
  // Sent by the response at its stream's end.
  up.on("trailers", (headers) =>
    (response as unknown as Http2ServerResponse).addTrailers(answerHeaders(headers)),
  );
  const answered = new Promise<void>((resolve, reject) => {
    up.on("response", (headers, flags) => {
      if (stream.destroyed || stream.headersSent) return;
      const status = headers[":status"] ?? 502;
      if (status < 200 || status > 599) {
        reject(new Error(`the answer's status is ${status}`));
        up.close(constants.NGHTTP2_PROTOCOL_ERROR);
        return;
      }
      response.statusCode = status;
      // What has no body may be its own trailers.
      const endStream = (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0;
      stream.respond(answerHeaders(headers), endStream ? { endStream } : { waitForTrailers: true });
      resolve();
    });
    up.on("error", reject);
    up.once("close", () => reject(new Error("the connection was closed")));
  });
  try {
    await answered;
  } catch (error) {
    throw new VmsanError(
      {
        code: "ERR_GATEWAY_UPSTREAM",
        message: `The port did not answer by HTTP/2`,
        why: messageOf(error),
        fix: "What listens there has to speak HTTP/2 without TLS (h2c with prior knowledge), as servers of gRPC do.",
      },
      error,
    );
  }
  try {
    if (!stream.writableEnded) await pipeline(up, stream);
    await sent;
  } catch {
    // Of two ends one has left: the other learns of it by the same code.
    stream.close(up.rstCode || constants.NGHTTP2_INTERNAL_ERROR);
  }
}
