/** Verified blobs of this host's store, for other nodes that lack them. */
import { open } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { errnoOf, VmsanError } from "../../model/errors.ts";

/** Most blobs that are sent at once: whoever comes then asks the registry. */
const MOST = 16;

/** How long a client may take nothing, in milliseconds. */
const SILENCE_MS = 30_000;

/** How an OCI layout names a blob's file. */
const HEX = /^sha256:([0-9a-f]{64})$/;

/** Sends blobs of one store. */
export class Blobs {
  private readonly directory: string;
  private sending = 0;

  /** @param store directory of an OCI layout in which blobs are put by rename, once they are verified */
  constructor(store: string) {
    this.directory = join(store, "blobs", "sha256");
  }

  private async open(digest: string): Promise<FileHandle> {
    const hex = HEX.exec(digest)?.[1];
    try {
      if (hex !== undefined) return await open(join(this.directory, hex), "r");
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
    }
    throw new VmsanError({
      code: "ERR_NODE_BLOB_NOT_FOUND",
      message: `There is no blob ${digest.slice(0, 100)} on this host`,
      why: "It was never here, or is gone.",
      fix: "Ask the image's registry.",
    });
  }

  /** Answer a GET or a HEAD; a GET may begin within the blob. @throws ERR_NODE_BLOB_NOT_FOUND, ERR_NODE_BUSY */
  async send(incoming: IncomingMessage, response: ServerResponse, digest: string): Promise<void> {
    const file = await this.open(digest);
    try {
      const { size } = await file.stat();
      const from = Number(/^bytes=(\d{1,15})-$/.exec(incoming.headers.range ?? "")?.[1] ?? 0);
      const headers = { "content-type": "application/octet-stream", "cache-control": "no-store" };
      if (incoming.method === "HEAD") {
        response.writeHead(200, { ...headers, "content-length": size }).end();
      } else if (from > 0 && from >= size) {
        response.writeHead(416, { "content-range": `bytes */${size}` }).end();
      } else {
        const range = from > 0 ? { "content-range": `bytes ${from}-${size - 1}/${size}` } : {};
        await this.body(file, from, response, () =>
          response.writeHead(from > 0 ? 206 : 200, {
            ...headers,
            ...range,
            "content-length": size - from,
          }),
        );
      }
    } finally {
      await file.close();
    }
  }

  private async body(
    file: FileHandle,
    start: number,
    response: ServerResponse,
    begin: () => void,
  ): Promise<void> {
    if (this.sending >= MOST) {
      throw new VmsanError({
        code: "ERR_NODE_BUSY",
        message: "This host sends as many blobs as it may",
        why: `${MOST} are being sent.`,
        fix: "Ask the image's registry.",
      });
    }
    this.sending += 1;
    try {
      begin();
      // One that takes nothing any more is not to hold a place.
      response.setTimeout(SILENCE_MS, () => response.destroy());
      await pipeline(file.createReadStream({ start, autoClose: false }), response);
    } finally {
      this.sending -= 1;
    }
  }
}
