/** The face that hands requests through to ports of VMs. */
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from "node:http";
import { request as httpRequest } from "node:http";
import type { Duplex } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Vm } from "../../client/vm.ts";
import type { Vmsan } from "../../client/vmsan.ts";
import type { VmView } from "../../model/api.ts";
import { VmsanError, messageOf } from "../../model/errors.ts";
import { joined } from "../../util/flow/joined.ts";
import { takenUntil } from "../../util/flow/unread.ts";
import { HOP_BY_HOP } from "../../util/hop-by-hop.ts";
import type { Gate } from "../access/gate.ts";
import { isKeyText } from "../access/keys.ts";
import type { Hosts } from "../http/hosts.ts";
import type { Face } from "../http/server.ts";
import { GATEWAY_HEADERS, PortRefusal, admitToPort, guestPortOf } from "./access.ts";
import { needsHttp2, proxyHttp2 } from "./http2.ts";

/** Headers as they go on: without those of the connection and those for the gateway. */
function onward(
  raw: readonly string[],
  connection: string | undefined,
  dropped: ReadonlySet<string>,
): OutgoingHttpHeaders {
  const named = new Set(
    (connection ?? "")
      .toLowerCase()
      .split(",")
      .map((name) => name.trim()),
  );
  const headers: Record<string, string[]> = {};
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i] ?? "";
    const value = raw[i + 1] ?? "";
    const lower = name.toLowerCase();
    // HTTP/2's own, which the request's line says.
    if (name.startsWith(":")) continue;
    if (HOP_BY_HOP.has(lower) || named.has(lower) || dropped.has(lower)) continue;
    // A key of the gateway's where a guest would read its own credentials.
    if (lower === "authorization" && isKeyText(value.replace(/^bearer +/i, ""))) continue;
    (headers[name] ??= []).push(value);
  }
  return headers;
}

/** How long a guest has to end a connection, in milliseconds. */
const LINGER_MS = 2_000;

/** Most ports of which it is remembered that they speak HTTP/2 alone. */
const MAX_REMEMBERED = 1_000;

const FOR_GATEWAY_AND_HOST = new Set([...GATEWAY_HEADERS, "host"]);
const NOTHING: ReadonlySet<string> = new Set();

/** A port that a request may use, and the Host header that the guest is to see there. */
interface AdmittedPort {
  vm: Vm;
  port: number;
  host: string | undefined;
}

/** A connection into a guest, and the Host header it is to see. */
interface OpenPort {
  connection: Duplex;
  host: string | undefined;
}

/** A connection to the port; its failure in the gateway's words. */
async function dial(vm: Vm, port: number): Promise<Duplex> {
  try {
    return await vm.dialLocal(port);
  } catch (error) {
    throw new VmsanError(
      {
        code: "ERR_GATEWAY_UPSTREAM",
        message: `Nothing answers on port ${port} of ${vm.id}`,
        why: error instanceof VmsanError ? (error.why ?? error.message) : messageOf(error),
        fix: "Check that the VM runs and that something in it listens on this port.",
      },
      error,
    );
  }
}

/** What goes before the request's own headers: who asked, and by which way. */
function forwarded(request: IncomingMessage): OutgoingHttpHeaders {
  return {
    "x-forwarded-for": request.socket.remoteAddress ?? "",
    "x-forwarded-host": request.headers.host ?? "",
    "x-forwarded-proto": "encrypted" in request.socket ? "https" : "http",
  };
}

/** A request's headers for the guest; its host apart, which HTTP/2 has elsewhere. */
function requestHeaders(request: IncomingMessage): OutgoingHttpHeaders {
  return {
    ...onward(request.rawHeaders, request.headers.connection, FOR_GATEWAY_AND_HOST),
    ...forwarded(request),
  };
}

/** The Host header that the guest sees. @param host instead of the one that was asked for */
function hostFor(request: IncomingMessage, host: string | undefined): string {
  return host ?? request.headers.host ?? "";
}

/** A port that did not answer a request as it was asked. */
function unanswered(why: string, fix: string, cause?: unknown): VmsanError {
  return new VmsanError(
    { code: "ERR_GATEWAY_UPSTREAM", message: "The port did not answer by HTTP/1.1", why, fix },
    cause,
  );
}

/** Types of the frames that servers of HTTP/2 begin, or refuse a connection, with: SETTINGS and GOAWAY. */
const FIRST_FRAMES = new Set([4, 7]);

/** Whether what was answered to a request of HTTP/1.1, and could not be read, are frames of HTTP/2. */
function isHttp2Answer(error: unknown): boolean {
  const bytes = error instanceof Error && "rawPacket" in error ? error.rawPacket : undefined;
  if (!Buffer.isBuffer(bytes) || bytes.length < 9) return false;
  return FIRST_FRAMES.has(bytes.readUInt8(3)) && bytes.readUInt32BE(5) === 0;
}

/** Whether a request has no body, so that it can be sent once more. */
function isBodiless(request: IncomingMessage): boolean {
  const { stream } = request as { stream?: { endAfterHeaders?: boolean } };
  return stream?.endAfterHeaders === true;
}

/** End a connection that nothing is sent on any more. */
function endOf(connection: Duplex): void {
  connection.end();
  // What listens there may leave its end open for ever.
  const late = setTimeout(() => connection.destroy(), LINGER_MS).unref();
  connection.once("close", () => clearTimeout(late));
}

/** Hand one request to a connection into a guest and its answer back. */
export async function proxyRequest(
  request: IncomingMessage,
  response: ServerResponse,
  { connection, host }: OpenPort,
): Promise<void> {
  const { method, url } = request;
  const upstream = httpRequest({
    createConnection: () => connection,
    method: method ?? "GET",
    path: url ?? "/",
    headers: {
      ...requestHeaders(request),
      Host: hostFor(request, host),
      // Else it would be closed with the answer, which may come before the end of the request.
      connection: "keep-alive",
    },
    setHost: false,
  });
  // A client that leaves takes the connection into the guest with it, also one that has its answer and still sends.
  const client = "stream" in request ? (request.stream as Duplex) : request.socket;
  const leave = (): void => void upstream.destroy();
  client.once("close", leave);
  // Node.js tells of room for more only until the answer is there.
  connection.on("drain", () => upstream.emit("drain"));
  request.pipe(upstream);
  const over = new Promise<void>((resolve) => upstream.once("close", resolve));
  takenUntil(request, over);
  void over.then(() => {
    client.off("close", leave);
    endOf(connection);
  });
  await new Promise<void>((resolve, reject) => {
    upstream.on("error", reject);
    upstream.on("response", (reply) => {
      response.writeHead(
        reply.statusCode ?? 502,
        reply.statusMessage ?? "",
        onward(reply.rawHeaders, reply.headers.connection, NOTHING),
      );
      // Events of a server are to arrive when it sends them.
      response.flushHeaders();
      pipeline(reply, response).then(resolve, reject);
    });
  });
}

/** Hand a connection that switches protocols (WebSocket) through, with the request that asked. */
async function proxyUpgrade(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  { connection, host }: OpenPort,
): Promise<void> {
  const headers = {
    ...requestHeaders(request),
    Host: hostFor(request, host),
    connection: "Upgrade",
    upgrade: request.headers.upgrade ?? "",
  };
  const lines = Object.entries(headers).flatMap(([name, values]) =>
    [values ?? []].flat().map((value) => `${name}: ${value}\r\n`),
  );
  connection.write(`${request.method} ${request.url} HTTP/1.1\r\n${lines.join("")}\r\n`, "latin1");
  if (head.length > 0) connection.write(head);
  await joined(socket, connection);
}

/** What another protocol promises of the ports of its VMs. */
export interface PortRules {
  /** A VM that can be used now; undefined: it sleeps, and requests are not to wake it. */
  ready: (vm: Vm) => Promise<Vm | undefined>;
  /** The Host header that the guest sees; undefined: the one that was asked for. */
  host: (view: VmView, port: number) => string | undefined;
  /** Whether that protocol itself answers for a port, and not the guest. */
  own: (port: number) => boolean;
  /** Answer a refused request in that protocol's words. @returns false: it has none */
  refused: (response: ServerResponse, refusal: PortRefusal) => boolean;
}

/** The face. */
export function portsFace(vmsan: Vmsan, gate: Gate, hosts: Hosts, rules: PortRules): Face {
  const admit = async (request: IncomingMessage): Promise<AdmittedPort> => {
    const target = guestPortOf(request, hosts);
    if (target === undefined) throw new Error("not a request for a port");
    let vm: Vm | undefined;
    await admitToPort(request, target, gate, async (id) => {
      vm = await vmsan.get(id);
      return vm.view;
    });
    if (vm === undefined) throw new Error("admitted without a VM");
    const usable = await rules.ready(vm);
    if (usable === undefined) throw new PortRefusal("asleep", vm.id, vm.view);
    return { vm: usable, port: target.port, host: rules.host(vm.view, target.port) };
  };
  const open = async ({ vm, port, host }: AdmittedPort): Promise<OpenPort> => ({
    connection: await dial(vm, port),
    host,
  });
  /** Ports whose servers speak HTTP/2 and nothing else, by VM and port. */
  const onlyHttp2 = new Set<string>();
  /** Hand a request on as HTTP/1.1. @returns false: it is to be sent by HTTP/2, the server understood nothing of it */
  const byHttp1 = async (
    request: IncomingMessage,
    response: ServerResponse,
    name: string,
    port: OpenPort,
  ): Promise<boolean> => {
    try {
      await proxyRequest(request, response, port);
      return true;
    } catch (error) {
      if (response.headersSent) throw error;
      if (!isHttp2Answer(error))
        throw unanswered(messageOf(error), "Check what listens there.", error);
      if (onlyHttp2.size >= MAX_REMEMBERED) onlyHttp2.clear();
      onlyHttp2.add(name);
      if (request.httpVersionMajor === 2 && isBodiless(request)) return false;
      const why = "What listens there speaks HTTP/2 alone.";
      if (request.httpVersionMajor === 2)
        throw unanswered(why, "Send it again: from now on it goes by HTTP/2.");
      throw unanswered(why, "Let the client speak HTTP/2, by prior knowledge or TLS.");
    }
  };
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const admitted = await admit(request);
    const { vm, port, host } = admitted;
    const name = `${vm.id}:${port}`;
    const http2 = needsHttp2(request) || (request.httpVersionMajor === 2 && onlyHttp2.has(name));
    if (!http2 && (await byHttp1(request, response, name, await open(admitted)))) return;
    try {
      await proxyHttp2(request, response, {
        name,
        headers: requestHeaders(request),
        authority: hostFor(request, host),
        dial: async () => await dial(vm, port),
      });
    } catch (error) {
      // Another server may listen there by now.
      onlyHttp2.delete(name);
      throw error;
    }
  };
  return {
    name: "ports",
    claims: (request) => guestPortOf(request, hosts) !== undefined,
    speaksHttp2: (request) => {
      const target = guestPortOf(request, hosts);
      return target !== undefined && !rules.own(target.port);
    },
    handle: async (request, response) => {
      response.once("close", () => gate.note(request, "ports", response.statusCode));
      try {
        await answer(request, response);
      } catch (error) {
        if (!(error instanceof PortRefusal) || !rules.refused(response, error)) throw error;
      }
    },
    upgrade: async (request, socket, head) => {
      const port = await open(await admit(request));
      gate.note(request, "ports", 101);
      await proxyUpgrade(request, socket, head, port);
    },
  };
}
