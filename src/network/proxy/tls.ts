/** The TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3): which server is asked for. Pure. */

/** What the beginning of a connection says. */
export type HelloResult =
  | { kind: "more" }
  | { kind: "name"; name: string }
  | { kind: "refused"; why: "not-tls" | "no-name" | "encrypted-hello" | "malformed" };

/** Longest ClientHello taken, in bytes: larger than any real one (post-quantum key shares included). */
const maxHello = 16_384;

const extensionServerName = 0;
const extensionEncryptedHello = 0xfe0d;

/** Reads numbers and byte strings off a buffer; any read past the end gives undefined for good. */
class Cursor {
  private at = 0;
  private readonly bytes: Buffer;
  failed = false;
  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }
  get left(): number {
    return this.bytes.length - this.at;
  }
  take(length: number): Buffer {
    if (this.failed || length > this.left) {
      this.failed = true;
      return Buffer.alloc(0);
    }
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }
  number(length: number): number {
    const bytes = this.take(length);
    return this.failed ? 0 : bytes.readUIntBE(0, length);
  }
  /** A byte string with its length in front. */
  vector(lengthBytes: number): Buffer {
    return this.take(this.number(lengthBytes));
  }
}

/** The handshake message at the beginning, put together from its records; undefined: more needed. */
function handshake(data: Buffer): Buffer | "not-tls" | "malformed" | undefined {
  const parts: Buffer[] = [];
  let have = 0;
  for (let at = 0; ;) {
    const head = data.subarray(at, at + 5);
    if (head.length > 0 && head[0] !== 22) return parts.length === 0 ? "not-tls" : "malformed";
    if (head.length > 1 && head[1] !== 3) return "not-tls";
    if (head.length < 5) return undefined;
    const length = head.readUInt16BE(3);
    if (length === 0 || length > maxHello) return "malformed";
    const part = data.subarray(at + 5, at + 5 + length);
    parts.push(part);
    have += part.length;
    if (have >= 4) {
      const all = Buffer.concat(parts);
      if (all[0] !== 1) return "malformed";
      const total = 4 + all.readUIntBE(1, 3);
      if (total > maxHello) return "malformed";
      if (all.length >= total) return all.subarray(4, total);
    }
    if (part.length < length) return undefined;
    at += 5 + length;
  }
}

/** The host name in a server_name extension; undefined when there is not exactly one. */
function serverName(extension: Buffer): string | undefined {
  const list = new Cursor(new Cursor(extension).vector(2));
  const names: string[] = [];
  while (list.left > 0 && !list.failed) {
    const type = list.number(1);
    const name = list.vector(2);
    if (list.failed || type !== 0) return undefined;
    names.push(name.toString("latin1"));
  }
  const [name] = names;
  if (names.length !== 1 || name === undefined) return undefined;
  return /^[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?$/.test(name) ? name : undefined;
}

/** Judge the first bytes of a connection. @param data everything received so far */
export function readHello(data: Buffer): HelloResult {
  const message = handshake(data);
  if (message === "not-tls" || message === "malformed") return { kind: "refused", why: message };
  if (message === undefined) {
    return data.length > maxHello ? { kind: "refused", why: "malformed" } : { kind: "more" };
  }
  const hello = new Cursor(message);
  hello.take(2 + 32); // version, random
  hello.vector(1); // session id
  hello.vector(2); // cipher suites
  hello.vector(1); // compression methods
  if (!hello.failed && hello.left === 0) return { kind: "refused", why: "no-name" };
  const extensions = new Cursor(hello.vector(2));
  if (hello.failed || hello.left > 0) return { kind: "refused", why: "malformed" };
  let name: string | undefined;
  const seen = new Set<number>();
  while (extensions.left > 0) {
    const type = extensions.number(2);
    const body = extensions.vector(2);
    if (extensions.failed || seen.has(type)) return { kind: "refused", why: "malformed" };
    seen.add(type);
    if (type === extensionEncryptedHello) return { kind: "refused", why: "encrypted-hello" };
    if (type === extensionServerName) {
      name = serverName(body);
      if (name === undefined) return { kind: "refused", why: "malformed" };
    }
  }
  return name === undefined ? { kind: "refused", why: "no-name" } : { kind: "name", name };
}

/** A fatal alert that tells a client why it was refused (unrecognized_name, RFC 6066). */
export const refusalAlert: Buffer = Buffer.from([21, 3, 3, 0, 2, 2, 112]);
