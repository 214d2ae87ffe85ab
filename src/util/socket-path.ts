/**
 * Unix socket paths of any length.
 *
 * sockaddr_un holds 108 bytes and libuv refuses more. A path through an open descriptor of
 * the directory, /proc/self/fd/N/name, names the same socket in a few bytes.
 */
import { closeSync, constants, openSync } from "node:fs";
import { basename, dirname } from "node:path";
import { createConnection } from "node:net";
import type { Server, Socket } from "node:net";

/** Longest path that fits sockaddr_un with its final NUL. */
const MAX_SUN_PATH = 107;

/** A path to give to connect or listen; valid until disposed of. */
export interface SocketPath extends Disposable {
  readonly path: string;
}

/**
 * A short name for a unix socket. Dispose of it once connected or listening.
 * @param path absolute path, its last component at most 80 bytes; its directory must exist when
 *   it is too long to be used as it is
 * @throws the system's error when the directory cannot be opened
 */
export function socketPath(path: string): SocketPath {
  if (Buffer.byteLength(path) <= MAX_SUN_PATH) return { path, [Symbol.dispose]: () => undefined };
  const directory = openSync(dirname(path), constants.O_DIRECTORY | constants.O_RDONLY);
  let open = true;
  return {
    path: `/proc/self/fd/${directory}/${basename(path)}`,
    [Symbol.dispose]: () => {
      if (open) closeSync(directory);
      open = false;
    },
  };
}

/**
 * Connect to a unix socket whose path may be of any length.
 * @throws the system's error (ENOENT, ECONNREFUSED …), or the signal's reason
 */
export async function connectUnix(path: string, signal?: AbortSignal): Promise<Socket> {
  signal?.throwIfAborted();
  const address = socketPath(path);
  try {
    return await new Promise<Socket>((resolve, reject) => {
      const socket = createConnection({ path: address.path });
      const finish = (): void => {
        signal?.removeEventListener("abort", abort);
        socket.removeListener("error", fail);
      };
      const fail = (error: Error): void => {
        finish();
        reject(error);
      };
      const abort = (): void => {
        finish();
        socket.destroy();
        reject(signal?.reason as Error);
      };
      signal?.addEventListener("abort", abort, { once: true });
      socket.once("error", fail);
      socket.once("connect", () => {
        finish();
        resolve(socket);
      });
    });
  } finally {
    address[Symbol.dispose]();
  }
}

/**
 * Listen on a unix socket whose path may be of any length.
 * The returned server removes nothing when it closes a path that was too long: the caller does.
 */
export async function listenUnix(server: Server, path: string): Promise<void> {
  const address = socketPath(path);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ path: address.path }, () => {
        server.removeListener("error", reject);
        resolve();
      });
    });
  } finally {
    address[Symbol.dispose]();
  }
}
