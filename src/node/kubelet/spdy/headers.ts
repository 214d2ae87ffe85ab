/** Headers of SPDY/3.1 streams: name and value lists, compressed with a dictionary that both sides know. */
import { constants, createDeflate, createInflate } from "node:zlib";
import type { Deflate, Inflate } from "node:zlib";
import { spdyError } from "./frames.ts";

/** Most bytes of one stream's headers, unpacked. */
const MAX_HEADERS = 64 << 10;

/** Most headers of one stream. */
const MAX_COUNT = 100;

/** Words of the dictionary that stand in it with their length (SPDY/3, 2.6.10.1). */
const WORDS =
  "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow authorization cache-control connection content-base content-encoding content-language content-length content-location content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status,200 OK,version HTTP/1.1 url public set-cookie keep-alive origin";

/** What follows those. */
const TAIL =
  "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/** The dictionary. */
export const DICTIONARY = Buffer.concat([
  // `200 OK` is the one word with a space in it.
  ...WORDS.split(",")
    .flatMap((part) => (part === "200 OK" ? [part] : part.split(" ")))
    .map(counted),
  Buffer.from(TAIL, "latin1"),
]);

function counted(text: string): Buffer {
  const bytes = Buffer.from(text, "latin1");
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** Unpacks and packs the headers of one connection: each block goes on where the one before has ended. */
export class HeaderBlocks {
  private readonly unpacker: Inflate = createInflate({ dictionary: DICTIONARY });
  private readonly packer: Deflate = createDeflate({ dictionary: DICTIONARY });

  /** Headers by their name in lower case. @throws ERR_NODE_SPDY */
  async decode(block: Buffer): Promise<Record<string, string>> {
    const bytes = await through(this.unpacker, block, MAX_HEADERS);
    const headers: Record<string, string> = {};
    let at = 0;
    const number = (): number => {
      if (at + 4 > bytes.length) throw spdyError("Headers end too early.");
      at += 4;
      return bytes.readUInt32BE(at - 4);
    };
    const text = (): string => {
      const length = number();
      if (at + length > bytes.length) throw spdyError("A header is longer than all of them.");
      at += length;
      return bytes.toString("latin1", at - length, at);
    };
    const count = number();
    if (count > MAX_COUNT) throw spdyError(`A stream has ${count} headers.`);
    for (let i = 0; i < count; i += 1) {
      const name = text().toLowerCase();
      Object.defineProperty(headers, name, { value: text(), enumerable: true, configurable: true });
    }
    return headers;
  }

  /** Headers as a block. */
  async encode(headers: Record<string, string>): Promise<Buffer> {
    const entries = Object.entries(headers);
    const count = Buffer.alloc(4);
    count.writeUInt32BE(entries.length);
    const plain = Buffer.concat([count, ...entries.flat().map(counted)]);
    return await through(this.packer, plain, Infinity);
  }

  /** Nothing more comes. */
  close(): void {
    this.unpacker.destroy();
    this.packer.destroy();
  }
}

/** One block through a packer that goes on afterwards. */
async function through(by: Inflate | Deflate, block: Buffer, most: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  return await new Promise((resolve, reject) => {
    const settle = (then: () => void): void => {
      by.off("data", take);
      by.off("error", failed);
      by.off("close", gone);
      then();
    };
    const take = (bytes: Buffer): void => {
      size += bytes.length;
      if (size > most) settle(() => reject(spdyError(`Headers unpack to over ${most} bytes.`)));
      else parts.push(bytes);
    };
    const failed = (error: Error): void =>
      settle(() => reject(spdyError(`Headers cannot be unpacked: ${error.message}`)));
    const gone = (): void => settle(() => reject(spdyError("The connection has ended.")));
    by.on("data", take);
    by.on("error", failed);
    by.on("close", gone);
    by.write(block, () => {
      by.flush(constants.Z_SYNC_FLUSH, () => settle(() => resolve(Buffer.concat(parts))));
    });
  });
}
