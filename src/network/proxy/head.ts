/**
 * The head of an HTTP/1.x request (RFC 9112). Strict: what two parsers could read in two ways is
 * none. Pure.
 */

/** Longest request head, in bytes. */
export const maxHead = 32_768;

/** How a request goes on after its head. */
export type Framing =
  | { name: "head" }
  | { name: "body"; left: number; after: "head" }
  | { name: "chunk-size" };

/** What a request head says. */
export interface Head {
  /** Whom it is for, lower case. */
  host: string;
  framing: Framing;
  /** It asks for WebSocket (RFC 6455, section 4.1) and for nothing else. */
  webSocket: boolean;
  /**
   * When it offers to go on with another protocol: the head without that offer, which is between
   * two neighbours only (RFC 9110, section 7.8); with its empty line.
   */
  withoutUpgrade?: string;
}

/** A field line: name and value. */
type Field = readonly [name: string, value: string];

/** Host name of `name[:port]`, lower case; undefined for anything else (literals included). */
function hostName(value: string): string | undefined {
  const match = /^([A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?)(?::\d{1,5})?$/.exec(value);
  return match?.[1]?.toLowerCase();
}

/** A field line; undefined when it is none, is folded, or holds a control character. */
function readField(line: string): Field | undefined {
  const match = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*$/.exec(line);
  return match === null ? undefined : [(match[1] ?? "").toLowerCase(), match[2] ?? ""];
}

/** Values of all fields of a name. */
function valuesOf(fields: readonly Field[], name: string): string[] {
  return fields.filter((field) => field[0] === name).map((field) => field[1]);
}

/** The words of a list that fields hold, lower case. */
function listOf(fields: readonly Field[], name: string): string[] {
  const all = valuesOf(fields, name).join(",").toLowerCase().split(",");
  return all.map((word) => word.trim()).filter((word) => word !== "");
}

/** How the request goes on after its head; undefined when that is ambiguous. */
function framingOf(fields: readonly Field[], version: string): Framing | undefined {
  const lengths = valuesOf(fields, "content-length");
  const codings = valuesOf(fields, "transfer-encoding");
  if (lengths.length + codings.length > 1) return undefined;
  if (codings.length === 1) {
    // Servers of 1.0 do not know it.
    const known = codings[0]?.toLowerCase() === "chunked" && version === "1.1";
    return known ? { name: "chunk-size" } : undefined;
  }
  if (lengths.length === 0) return { name: "head" };
  if (!/^\d{1,15}$/.test(lengths[0] ?? "")) return undefined;
  const left = Number(lengths[0]);
  return left === 0 ? { name: "head" } : { name: "body", left, after: "head" };
}

/** Fields that must reach the server whatever stands between. */
const endToEnd = ["host", "content-length", "transfer-encoding"];
/** Fields that offer another protocol. */
const offers = ["upgrade", "http2-settings"];

/** Read a request head (without its empty line); undefined when it is not plain HTTP/1.x. */
export function readHead(text: string): Head | undefined {
  // A lone CR or LF is a line end to some servers and not to others; no field may hold one.
  const [requestLine = "", ...lines] = text.split("\r\n");
  const request = /^([A-Za-z]{1,32}) ([\x21-\x7e\x80-\xff]+) HTTP\/(1\.[01])$/.exec(requestLine);
  if (request === null) return undefined;
  const [, method = "", target = "", version = ""] = request;
  if (method.toUpperCase() === "CONNECT") return undefined;
  const fields = lines.map(readField).filter((field) => field !== undefined);
  if (fields.length !== lines.length) return undefined;
  const hosts = valuesOf(fields, "host");
  const host = hosts.length === 1 ? hostName(hosts[0] ?? "") : undefined;
  if (host === undefined) return undefined;
  if (!target.startsWith("/") && target !== "*") {
    const absolute = /^https?:\/\/([^/?#]+)/i.exec(target);
    if (hostName(absolute?.[1] ?? "") !== host) return undefined;
  }
  const framing = framingOf(fields, version);
  const connection = listOf(fields, "connection");
  if (framing === undefined || connection.some((word) => endToEnd.includes(word))) return undefined;
  if (!fields.some(([name]) => offers.includes(name))) return { host, framing, webSocket: false };
  const kept = fields.filter(([name]) => !offers.includes(name) && name !== "connection");
  const words = connection.filter((word) => !offers.includes(word));
  if (words.length > 0) kept.push(["connection", words.join(", ")]);
  return {
    host,
    framing,
    webSocket:
      method === "GET" &&
      version === "1.1" &&
      framing.name === "head" &&
      valuesOf(fields, "upgrade").join().toLowerCase() === "websocket" &&
      valuesOf(fields, "http2-settings").length === 0 &&
      connection.includes("upgrade"),
    withoutUpgrade: [requestLine, ...kept.map((field) => field.join(": ")), "", ""].join("\r\n"),
  };
}
