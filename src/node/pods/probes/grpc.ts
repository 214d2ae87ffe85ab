/**
 * Asks a server of gRPC whether it is well: `grpc.health.v1.Health/Check`, one message there and one back over HTTP/2
 * (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
 */
import type { ClientHttp2Session, IncomingHttpHeaders } from "node:http2";
import type { Duplex } from "node:stream";
import { Message, encode } from "../../../util/packing/protobuf.ts";

/** Bytes in front of each message: whether it is compressed, and its length. */
const HEAD = 5;
/** Most bytes of an answer: it is a number. */
const MAX_ANSWER = 4096;
/** What a server may say of a service, by number. */
const STATUS = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING = 1;
/** Longest word of a server that is told. */
const SAID = 200;

/** The request for a service; an empty name stands for all of the server. */
function question(service: string): Buffer {
  const message = encode([1, service]);
  const head = Buffer.alloc(HEAD);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** What is wrong with an answer; undefined: nothing. */
function judge(answer: Buffer, end: IncomingHttpHeaders): string | undefined {
  const status = String(end["grpc-status"] ?? "");
  if (status !== "0") {
    const said = String(end["grpc-message"] ?? "").slice(0, SAID);
    return status === ""
      ? "it is no server of gRPC"
      : `gRPC status ${status.slice(0, 9)} ${said}`.trim();
  }
  const length = answer.length < HEAD ? -1 : answer.readUInt32BE(1);
  if (answer[0] !== 0 || length !== answer.length - HEAD) return "its answer is no message of gRPC";
  try {
    const state = Number(new Message(answer.subarray(HEAD)).number(1));
    return state === SERVING ? undefined : `it says ${STATUS[state] ?? state}`;
  } catch {
    // RangeError: bytes that are no message.
    return "its answer is no message of gRPC";
  }
}

/**
 * Ask once.
 * @param socket a connection to it; it is not ended here
 * @returns what is wrong; undefined: it serves
 * @throws by the signal, and when the connection ends
 */
export async function askHealth(
  socket: Duplex,
  port: number,
  service: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  // Most pods have none of these probes.
  const { connect } = await import("node:http2");
  const session: ClientHttp2Session = connect(`http://127.0.0.1:${port}`, {
    createConnection: () => socket,
  });
  try {
    return await new Promise((resolve, reject) => {
      session.on("error", reject);
      session.on("close", () => reject(new Error("the connection was ended")));
      const call = session.request(
        {
          ":method": "POST",
          ":path": "/grpc.health.v1.Health/Check",
          "content-type": "application/grpc",
          "user-agent": "kube-probe/vmsan",
          te: "trailers",
        },
        { signal },
      );
      const parts: Buffer[] = [];
      let size = 0;
      let end: IncomingHttpHeaders = {};
      call.on("response", (headers: IncomingHttpHeaders) => {
        // One that has no message has its status here.
        if (headers["grpc-status"] !== undefined) end = headers;
      });
      call.on("trailers", (headers: IncomingHttpHeaders) => (end = headers));
      call.on("data", (bytes: Buffer) => {
        size += bytes.length;
        if (size > MAX_ANSWER) call.destroy(new Error("its answer is too long"));
        else parts.push(bytes);
      });
      call.on("error", reject);
      call.on("end", () => resolve(judge(Buffer.concat(parts), end)));
      call.end(question(service));
    });
  } finally {
    session.destroy();
  }
}
