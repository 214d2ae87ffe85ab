/**
 * client/connection/: what a single connection to the daemon takes besides requests.
 *
 * upgrade.ts: a connection to the daemon that becomes a stream's, asked for without node:http: who holds hundreds of streams has each for a
 * part of the time and the memory.
 */
import type { Socket } from "node:net";
import { connectUnix } from "../../util/socket-path.ts";

/** Longest head of a reply, in bytes. */
const HEAD_LIMIT = 16 << 10;

/**
 * Send a request that asks for a switch of protocols.
 * @param server absolute path of a unix socket
 * @param head of the request, in full
 * @param watch told of the connection while it waits for an answer @returns ends that
 * @returns undefined when the answer is not the switch: what it is, is learnt by asking again
 * @throws the system's error (ENOENT, ECONNREFUSED …), ECONNRESET without an answer, or the signal's reason
 */
export async function switchUnix(
  server: string,
  head: string,
  watch: (socket: Socket) => () => void,
  signal?: AbortSignal,
): Promise<Socket | undefined> {
  const socket = await connectUnix(server, signal);
  const watched = watch(socket);
  let seen: Buffer = Buffer.alloc(0);
  try {
    return await new Promise<Socket | undefined>((resolve, reject) => {
      const settle = (): void => {
        socket.off("readable", take).off("error", fail).off("close", end);
        signal?.removeEventListener("abort", abort);
      };
      const read = (): Buffer | null => socket.read() as Buffer | null;
      const fail = (error: Error): void => {
        settle();
        socket.destroy();
        reject(error);
      };
      const end = (): void =>
        fail(Object.assign(new Error("the daemon closed the connection"), { code: "ECONNRESET" }));
      const abort = (): void => fail(signal?.reason as Error);
      const take = (): void => {
        for (let bytes = read(); bytes !== null; bytes = read()) {
          seen = seen.length === 0 ? bytes : Buffer.concat([seen, bytes]);
        }
        const at = seen.indexOf("\r\n\r\n");
        if (at < 0 && seen.length < HEAD_LIMIT) return;
        settle();
        if (at < 0 || !seen.subarray(0, at).toString("latin1").startsWith("HTTP/1.1 101 ")) {
          socket.destroy();
          resolve(undefined);
          return;
        }
        if (at + 4 < seen.length) socket.unshift(seen.subarray(at + 4));
        resolve(socket);
      };
      // Not "data": whoever reads on is to have it as a connection that nobody has read from.
      socket.on("readable", take).on("error", fail).on("close", end);
      signal?.addEventListener("abort", abort, { once: true });
      socket.write(head, "latin1");
    });
  } finally {
    watched();
  }
}
