/**
 * Messages of Protocol Buffers as bytes and back, by field numbers. The few fields that count are named where they are
 * used; a library would want whole schemas of others. Pure: bytes in, values out.
 */

/** A field's value: a number, or the bytes of a text or a message. */
type Value = bigint | Buffer;

/** What may be written: text, bytes, a number, a switch; nothing, 0, false and "" are left out. */
type Written = string | Buffer | number | bigint | boolean | undefined;

function varint(value: bigint): Buffer {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, value);
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    bytes.push(rest === 0n ? low : low | 0x80);
  } while (rest !== 0n);
  return Buffer.from(bytes);
}

/** A message of fields by their numbers. */
export function encode(...fields: (readonly [number, Written])[]): Buffer {
  const parts: Buffer[] = [];
  for (const [number, value] of fields) {
    if (value === undefined || value === "" || value === false || value === 0) continue;
    if (typeof value === "string" || Buffer.isBuffer(value)) {
      const bytes = Buffer.from(value as string);
      parts.push(varint(BigInt(number * 8 + 2)), varint(BigInt(bytes.length)), bytes);
    } else parts.push(varint(BigInt(number * 8)), varint(BigInt(value)));
  }
  return Buffer.concat(parts);
}

/** A map of texts as fields of one number. */
export function mapFields(number: number, map: Record<string, string>): [number, Buffer][] {
  return Object.entries(map).map(([key, value]) => [number, encode([1, key], [2, value])]);
}

/** A message that was received. */
export class Message {
  private readonly fields = new Map<number, Value[]>();

  /** @throws RangeError for bytes that are no message */
  constructor(bytes: Buffer) {
    let at = 0;
    const number = (): bigint => {
      let value = 0n;
      for (let shift = 0n; shift < 70n; shift += 7n) {
        const byte = bytes[at];
        if (byte === undefined) break;
        at += 1;
        value |= BigInt(byte & 0x7f) << shift;
        if (byte < 0x80) return BigInt.asUintN(64, value);
      }
      throw new RangeError("a number without an end");
    };
    const take = (length: number): Buffer => {
      if (at + length > bytes.length) throw new RangeError("a field without an end");
      at += length;
      return bytes.subarray(at - length, at);
    };
    while (at < bytes.length) {
      const tag = Number(number());
      const kind = tag % 8;
      let value: Value;
      if (kind === 0) value = number();
      else if (kind === 1) value = take(8).readBigUInt64LE();
      else if (kind === 2) value = take(Number(number()));
      else if (kind === 5) value = BigInt(take(4).readUInt32LE());
      else throw new RangeError(`a field of kind ${kind}`);
      const field = Math.floor(tag / 8);
      const known = this.fields.get(field);
      if (known === undefined) this.fields.set(field, [value]);
      else known.push(value);
    }
  }

  /** All byte fields of a number. */
  all(field: number): Buffer[] {
    return (this.fields.get(field) ?? []).filter((value) => typeof value !== "bigint");
  }

  /** The last one; empty when there is none. */
  bytes(field: number): Buffer {
    return this.all(field).at(-1) ?? Buffer.alloc(0);
  }

  /** Whether a field is there. */
  has(field: number): boolean {
    return this.fields.has(field);
  }

  text(field: number): string {
    return this.bytes(field).toString("utf8");
  }

  /** A number; 0 when there is none. */
  number(field: number): bigint {
    const value = this.fields.get(field)?.at(-1);
    return typeof value === "bigint" ? value : 0n;
  }

  /** A message in a field. */
  message(field: number): Message {
    return new Message(this.bytes(field));
  }

  /** All messages of a field. */
  messages(field: number): Message[] {
    return this.all(field).map((bytes) => new Message(bytes));
  }

  /** A map of texts. */
  map(field: number): Record<string, string> {
    return Object.fromEntries(this.messages(field).map((one) => [one.text(1), one.text(2)]));
  }
}
