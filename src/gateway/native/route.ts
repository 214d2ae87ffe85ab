/** What a route of the native face is. */
import type { Context } from "hono";
import type { z } from "zod";
import type { Vmsan } from "../../client/vmsan.ts";
import type { Caller, Gate } from "../access/gate.ts";
import type { GatewayDriver } from "./bodies.ts";

/** What a route works with. */
export interface RouteContext {
  c: Context;
  caller: Caller;
  vmsan: Vmsan;
  gate: Gate;
  driver: GatewayDriver;
}

/** One route. */
export interface Route {
  method: "GET" | "POST" | "PUT" | "DELETE";
  /** With `:vm` for a VM's ID or name; `*` for a rest that is handed on. */
  path: string;
  summary: string;
  /** Only keys made with --admin. */
  admin?: boolean;
  /** The JSON body. */
  body?: z.ZodType;
  /** Query parameters, all optional unless told by the handler. */
  query?: Record<string, string>;
  /** What is answered: JSON, lines of progress (docs/api.md), bytes, or nothing. */
  answers: "json" | "lines" | "bytes" | "nothing";
  /** The shape of a JSON answer, where it is not a VM or what the daemon says. */
  reply?: z.ZodType;
  run(context: RouteContext): Promise<Response> | Response;
}
