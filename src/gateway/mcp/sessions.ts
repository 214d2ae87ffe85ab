/**
 * mcp/: the Model Context Protocol over HTTP. Takes requests with API keys, hands them to the server of
 * their session (src/mcp/), which makes VMs of the key's project within its limits.
 *
 * sessions.ts: which session a request belongs to.
 */
import { randomUUID } from "node:crypto";
import type { McpHttpHandler } from "@modelcontextprotocol/server";
import {
  WebStandardStreamableHTTPServerTransport,
  createMcpHandler,
  isLegacyRequest,
} from "@modelcontextprotocol/server";
import { mcpServer } from "../../mcp/server.ts";
import { Session } from "../../mcp/session.ts";
import type { SessionOptions } from "../../mcp/session.ts";
import { VmsanError, messageOf } from "../../model/errors.ts";
import type { AgentPolicy } from "../../model/agent-policy.ts";
import type { Vmsan } from "../../client/vmsan.ts";
import type { Log } from "../../util/log.ts";
import { sees } from "../access/gate.ts";
import type { Caller, Gate } from "../access/gate.ts";
import { KEY_LABEL, occupied } from "../access/limits.ts";
import type { GatewayDriver } from "../native/bodies.ts";

/** Time without a request after which a session ends, in milliseconds. */
const IDLE_MS = 30 * 60_000;
/** Sessions of one key. */
const MAX_SESSIONS = 100;
/** Longest message, in bytes. */
const MAX_MESSAGE = 16 << 20;

/** What sessions are made with. */
export interface McpParts {
  vmsan: Vmsan;
  gate: Gate;
  policy: AgentPolicy;
  driver: GatewayDriver;
  /** Name that guests' ports are below, with the port that clients use. */
  domain: string | null;
  log: Log;
  /** Instead of {@link IDLE_MS}. */
  idleMs?: number;
}

interface Open {
  keyId: string;
  session: Session;
  answer: (request: Request) => Promise<Response>;
  end: () => Promise<void>;
  /** Requests that are being answered. */
  busy: number;
  ended: boolean;
  timer?: NodeJS.Timeout;
}

/** All sessions of a gateway. */
export class McpSessions {
  private readonly parts: McpParts;
  private readonly open = new Map<string, Open>();

  constructor(parts: McpParts) {
    this.parts = parts;
  }

  /** Answer a request of a caller. @param origin scheme, host and port that the caller used */
  async answer(request: Request, caller: Caller, origin: string): Promise<Response> {
    const found = await this.find(request, caller, origin);
    found.busy += 1;
    clearTimeout(found.timer);
    try {
      const response = await found.answer(request);
      return this.watched(found, response);
    } catch (error) {
      this.rest(found);
      throw error;
    }
  }

  /** A response whose session is in use until all of it was sent. */
  private watched(open: Open, response: Response): Response {
    const { body } = response;
    if (body === null) {
      this.rest(open);
      return response;
    }
    const reader = body.getReader();
    let done = false;
    const rest = (): void => {
      if (!done) this.rest(open);
      done = true;
    };
    const passed = new ReadableStream<Uint8Array>({
      pull: async (out) => {
        try {
          const next = await reader.read();
          if (next.done) {
            rest();
            out.close();
          } else out.enqueue(next.value);
        } catch (error) {
          rest();
          out.error(error);
        }
      },
      cancel: async (reason) => {
        rest();
        await reader.cancel(reason);
      },
    });
    return new Response(passed, { status: response.status, headers: response.headers });
  }

  /** One request less: without any the session ends after a while, and at once when it never began. */
  private rest(open: Open): void {
    open.busy -= 1;
    if (open.busy > 0 || open.ended) return;
    clearTimeout(open.timer);
    if (!this.isListed(open)) {
      void open.end();
      return;
    }
    open.timer = setTimeout(() => {
      this.parts.log.info(`MCP: a session of the key ${open.keyId} ends: nobody has used it`);
      void open.end();
    }, this.parts.idleMs ?? IDLE_MS);
    open.timer.unref();
  }

  /** Whether requests can find it. */
  private isListed(open: Open): boolean {
    return [...this.open.values()].includes(open);
  }

  private async find(request: Request, caller: Caller, origin: string): Promise<Open> {
    const id = request.headers.get("mcp-session-id");
    if (id !== null) {
      const known = this.open.get(id);
      // One of another key is none.
      if (known?.keyId === caller.key.id) return known;
      throw new VmsanError({
        code: "ERR_MCP_SESSION_NOT_FOUND",
        message: "There is no such session",
        why: "It has ended, or never was.",
        fix: "Begin another one.",
      });
    }
    const mine = [...this.open.values()].filter(({ keyId }) => keyId === caller.key.id);
    if (await isLegacyRequest(request, undefined, { maxRequestBodySize: MAX_MESSAGE })) {
      if (mine.length >= MAX_SESSIONS) {
        throw new VmsanError({
          code: "ERR_GATEWAY_QUOTA",
          message: "Too many sessions with this key",
          why: `There are ${mine.length}.`,
          fix: "End those that are not needed (DELETE), or wait: idle ones end by themselves.",
        });
      }
      return await this.begin(caller, origin);
    }
    return this.open.get(modernId(caller)) ?? this.beginModern(caller, origin);
  }

  /** A session of a client that keeps one, by its ID. */
  private async begin(caller: Caller, origin: string): Promise<Open> {
    const session = new Session(this.sessionOptions(caller, origin));
    const transport = new WebStandardStreamableHTTPServerTransport({
      sessionIdGenerator: () => randomUUID(),
      maxRequestBodySize: MAX_MESSAGE,
      onsessioninitialized: (id) => void this.open.set(id, open),
      onsessionclosed: () => void open.end(),
    });
    const server = mcpServer(session);
    const open: Open = {
      keyId: caller.key.id,
      session,
      busy: 0,
      ended: false,
      answer: async (request) => await transport.handleRequest(request),
      end: async () => {
        if (open.ended) return;
        open.ended = true;
        clearTimeout(open.timer);
        if (transport.sessionId !== undefined) this.open.delete(transport.sessionId);
        await this.endOf(session, async () => await server.close());
      },
    };
    await server.connect(transport);
    return open;
  }

  /** The one session of a key's clients that know none: the protocol from 2026-07-28 on. */
  private beginModern(caller: Caller, origin: string): Open {
    const session = new Session(this.sessionOptions(caller, origin));
    const handler: McpHttpHandler = createMcpHandler(() => mcpServer(session), {
      legacy: "reject",
      maxRequestBodySize: MAX_MESSAGE,
      onerror: (error) => this.parts.log.info(`MCP: ${messageOf(error)}`),
    });
    const open: Open = {
      keyId: caller.key.id,
      session,
      busy: 0,
      ended: false,
      answer: async (request) => await handler.fetch(request),
      end: async () => {
        if (open.ended) return;
        open.ended = true;
        clearTimeout(open.timer);
        this.open.delete(modernId(caller));
        await this.endOf(session, async () => await handler.close());
      },
    };
    this.open.set(modernId(caller), open);
    return open;
  }

  private async endOf(session: Session, closeServer: () => Promise<void>): Promise<void> {
    try {
      await closeServer();
      await session.close();
    } catch (error) {
      this.parts.log.error("cannot end an MCP session", error);
    }
  }

  private sessionOptions(caller: Caller, origin: string): SessionOptions {
    const { vmsan, gate, policy, driver, domain, log } = this.parts;
    const { key } = caller;
    return {
      vmsan,
      policy,
      base: { project: key.project, labels: { [KEY_LABEL]: key.id }, driver },
      reserve: async (wanted) => gate.quotas.reserve(key, wanted, await occupied(vmsan, key)),
      expose: async (vm, port) => {
        await vm.refresh();
        if (!sees(caller, vm.view)) throw new TypeError("a sandbox of another project");
        const token = gate.tokens.of(key, "traffic", vm.id);
        const headers = { "vmsan-traffic-token": token };
        if (domain !== null) {
          const { protocol } = new URL(origin);
          return { url: `${protocol}//${port}-${vm.id}.${domain}`, headers };
        }
        return {
          url: origin,
          headers: { ...headers, "vmsan-vm": vm.id, "vmsan-port": String(port) },
        };
      },
      log: (message) => log.info(`MCP: ${message}`),
    };
  }

  /** End all sessions. */
  async close(): Promise<void> {
    await Promise.all([...this.open.values()].map(async ({ end }) => await end()));
  }
}

/** The name of the session of clients that know none. */
function modernId({ key }: Caller): string {
  return `key ${key.id}`;
}
