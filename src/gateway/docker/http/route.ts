/** One entry of a table of routes: it is served and described from the same place. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import type { Engine } from "../engine.ts";
import { readJson, sendJson, sendStatus } from "./wire.ts";
import type { Hijack } from "./wire.ts";
import { parseFilters } from "./filters.ts";
import type { Filters } from "./filters.ts";

/** What a query says; names are as clients write them. */
export class Query {
  private readonly values: URLSearchParams;

  constructor(values: URLSearchParams) {
    this.values = values;
  }

  /** A value, or "" when there is none. */
  text(name: string): string {
    return this.values.get(name) ?? "";
  }

  /** All values of a name. */
  all(name: string): string[] {
    return this.values.getAll(name);
  }

  /** Whether a name is there at all. */
  has(name: string): boolean {
    return this.values.has(name);
  }

  /** A switch: what is empty, 0, false, no or none is off. */
  flag(name: string, absent = false): boolean {
    const value = this.values.get(name);
    if (value === null) return absent;
    return !["", "0", "false", "no", "none"].includes(value.trim().toLowerCase());
  }

  /** A whole number; undefined when it is none. */
  number(name: string): number | undefined {
    const value = this.values.get(name) ?? "";
    return /^-?\d{1,15}$/.test(value) ? Number(value) : undefined;
  }

  /** The `filters`. @throws 400 */
  filters(): Filters {
    return parseFilters(this.values.get("filters"));
  }
}

/** What a route is given. */
export interface Call {
  engine: Engine;
  /** Parts of the path, decoded. */
  params: Record<string, string>;
  query: Query;
  request: IncomingMessage;
  /** Of a call that may be taken over, only {@link Call.hijack} answers. */
  response: ServerResponse;
  /** The connection that both sides go on to use, whether the client has asked for that or not. */
  hijack(): Promise<Hijack>;
  /** HTTP/2 from now on, where the client has asked for that. @throws 400 */
  http2(): Promise<Duplex>;
  /** A WebSocket, where the client has asked for one: its messages as bytes, both ways. @throws 400 */
  webSocket(): Promise<Duplex>;
}

/** One route. */
export interface Route {
  method: "GET" | "HEAD" | "POST" | "PUT" | "DELETE";
  /** `:id` is one part of the path, `:name` may have slashes. */
  path: string;
  /** How it compares with Docker's own engine. */
  says: "works" | "differs" | "refused";
  /** How it differs, or why it is refused. */
  note?: string;
  /** Its client may have the connection taken over; it answers through {@link Call.hijack} alone. */
  hijacks?: true;
  run(call: Call): Promise<void>;
}

/** The JSON body of a call. */
export async function bodyOf({ request }: Call): Promise<unknown> {
  return await readJson(request);
}

/** Answer with a value. */
export function reply({ response }: Call, value: unknown, status = 200): void {
  sendJson(response, status, value);
}

/** Answer with a status alone. */
export function done({ response }: Call, status = 204): void {
  sendStatus(response, status);
}

/** A route ready to be matched. */
export interface CompiledRoute {
  route: Route;
  pattern: RegExp;
}

/** The pattern of a route's path. */
export function compile(route: Route): CompiledRoute {
  const source = route.path
    .replaceAll(/[.]/g, "\\.")
    .replaceAll(":name", "(?<name>.+)")
    .replaceAll(/:([a-z]+)/g, "(?<$1>[^/]+)");
  return { route, pattern: new RegExp(`^${source}$`) };
}
