/** One request of a guest with its answer. */
import {
  request as httpRequest,
  type ClientRequest,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import { request as httpsRequest } from "node:https";
import type { Socket } from "node:net";
import { pipeline, type Readable } from "node:stream";
import { errnoOf, messageOf } from "../../model/errors.ts";
import { decoderOf } from "../../util/flow/coding.ts";
import { dropUnread } from "../../util/flow/unread.ts";
import { maxGrown, wholeBody, maxWhole, ReplacingStream } from "./bodies.ts";
import { puttingIn } from "./forms.ts";
import { incoming, judge, outgoing, outgoingPath, valuesOf, type RawHeaders } from "./heads.ts";
import type { Passage } from "./passage.ts";
import { replaceAll, replaceText } from "./replace.ts";

/** Longest head of an answer, in bytes. */
const maxHead = 65_536;

/** Milliseconds for the connection to the server. */
const connectMs = 15_000;

/** Methods whose requests have no body as a rule: its absence is not said. */
const bodiless = new Set(["GET", "HEAD", "DELETE", "OPTIONS"]);

/** A request's body: how its length is told, and what is sent. */
interface Body {
  headers: RawHeaders;
  /** All of it, or what it comes from. */
  content: Buffer | Readable;
}

/** Carries one request to its server, and the answer back. */
export class Exchange {
  private readonly passage: Passage;
  private readonly request: IncomingMessage;
  private readonly response: ServerResponse;
  private up: ClientRequest | undefined;
  /** Bytes of room that bodies have taken. */
  private held = 0;

  constructor(passage: Passage, request: IncomingMessage, response: ServerResponse) {
    this.passage = passage;
    this.request = request;
    this.response = response;
  }

  /** Begin; everything that goes wrong is told the guest, or ends its connection. */
  run(): void {
    const { request, response } = this;
    this.passage.open.add(this);
    dropUnread(request, response);
    response.on("close", () => this.end());
    // A guest that resets its connection has lost interest in the answer.
    request.on("error", () => response.destroy());
    this.begin().catch((error: unknown) => this.fail(messageOf(error)));
  }

  /** It is over, or nobody waits for the answer any more. */
  end(): void {
    const { passage, response } = this;
    passage.open.delete(this);
    passage.room.give(this.held);
    this.held = 0;
    // A server that has answered early takes no more.
    if (this.up?.writableFinished === false) this.up.destroy();
    if (response.writableFinished) return;
    response.destroy();
    this.up?.destroy();
  }

  private async begin(): Promise<void> {
    const { passage, request } = this;
    const { method = "", url = "", rawHeaders } = request;
    const judged = judge({ method, target: url, rawHeaders }, passage.to);
    if ("status" in judged) {
      passage.denied(judged.rule);
      this.say(judged.status, judged.text);
      return;
    }
    let body: Body | undefined;
    try {
      body = await this.body();
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      passage.denied("secret-length");
      this.say(413, "with its values this body is too long");
      return;
    }
    if (body === undefined) {
      passage.denied("secret-malformed");
      this.say(501, "this coding of a body is not passed on");
      return;
    }
    const head = {
      method,
      path: outgoingPath(judged.path, passage.secrets),
      headers: [...outgoing(rawHeaders, judged.host, passage.secrets), ...body.headers],
    };
    this.send(head, body, true);
  }

  /** Set aside room for a body that is held back. */
  private take(bytes: number, most = maxWhole): boolean {
    if (bytes > most || !this.passage.room.take(bytes)) return false;
    this.held += bytes;
    return true;
  }

  /** The request's body as the server gets it; undefined when it cannot be read in one way only. */
  private async body(): Promise<Body | undefined> {
    const { request, passage } = this;
    const { rawHeaders, method = "" } = request;
    const codings = valuesOf(rawHeaders, "transfer-encoding");
    const [length] = valuesOf(rawHeaders, "content-length");
    const [mediaType] = valuesOf(rawHeaders, "content-type");
    const replacements = puttingIn(passage.secrets, "body", mediaType);
    if (codings.length > 0) {
      if (codings.join().toLowerCase() !== "chunked") return undefined;
      const content = new ReplacingStream(replacements);
      pipeline(request, content, () => undefined);
      return { headers: ["Transfer-Encoding", "chunked"], content };
    }
    if (length === undefined || Number(length) === 0) {
      const said = length !== undefined || !bodiless.has(method);
      return { headers: said ? ["Content-Length", "0"] : [], content: Buffer.alloc(0) };
    }
    if (replacements.length === 0 || !this.take(Number(length))) {
      return { headers: ["Content-Length", length], content: request };
    }
    const content = replaceAll(await wholeBody(request, Number(length)), replacements, maxGrown);
    const more = content.length - Number(length);
    if (more > 0 && !this.take(more, maxGrown)) throw new RangeError("no room");
    return { headers: ["Content-Length", String(content.length)], content };
  }

  /** @param again whether it may be sent once more, on another connection */
  private send(
    head: { method: string; path: string; headers: RawHeaders },
    body: Body,
    again: boolean,
  ): void {
    const { passage, response } = this;
    if (response.destroyed) return;
    const start = passage.to.scheme === "https" ? httpsRequest : httpRequest;
    const up = start({
      ...head,
      agent: passage.agent,
      host: passage.address,
      port: passage.to.port,
      setHost: false,
      maxHeaderSize: maxHead,
      insecureHTTPParser: false,
    });
    this.up = up;
    up.on("socket", (socket: Socket) => {
      if (!socket.connecting) return;
      const timer = setTimeout(() => up.destroy(new Error("no connection in time")), connectMs);
      const done = (): void => clearTimeout(timer);
      socket.once(passage.to.scheme === "https" ? "secureConnect" : "connect", done);
      socket.once("close", done);
    });
    up.on("response", (answer) => {
      this.answer(answer).catch((error: unknown) => this.fail(messageOf(error)));
    });
    // Nobody has offered another protocol.
    up.on("upgrade", (_answer, socket) => {
      socket.destroy();
      this.fail("the server changed the protocol");
    });
    up.on("error", (error) => {
      // The server closed a connection that was kept, just when it was used.
      const stale = up.reusedSocket && errnoOf(error) === "ECONNRESET" && !response.headersSent;
      if (stale && again && Buffer.isBuffer(body.content)) this.send(head, body, false);
      else this.fail(messageOf(error));
    });
    if (Buffer.isBuffer(body.content)) up.end(body.content);
    else pipeline(body.content, up, (error) => error && response.destroy());
  }

  /** Give the guest what the server has answered, without values. */
  private async answer(answer: IncomingMessage): Promise<void> {
    const { response, request } = this;
    const { exact, sameLength } = this.passage.takeOut;
    const { rawHeaders, statusCode = 502, statusMessage = "" } = answer;
    const headers = incoming(rawHeaders, exact);
    const begin = (): void => {
      response.sendDate = false;
      response.writeHead(statusCode, replaceText(statusMessage, exact), headers);
    };
    // Of these the parser undoes the last alone.
    if (!/^(?:chunked)?$/i.test(valuesOf(rawHeaders, "transfer-encoding").join())) {
      answer.destroy();
      this.fail("the answer has a coding that cannot be looked into");
      return;
    }
    const codings = valuesOf(rawHeaders, "content-encoding")
      .join(",")
      .toLowerCase()
      .split(",")
      .map((word) => word.trim())
      .filter((word) => word !== "" && word !== "identity");
    const [length] = codings.length > 0 ? [] : valuesOf(rawHeaders, "content-length");
    if (request.method === "HEAD" || statusCode === 204 || statusCode === 304) {
      if (length !== undefined) headers.push("Content-Length", length);
      begin();
      answer.resume();
      response.end();
      return;
    }
    const decoder = codings.length === 0 ? undefined : decoderOf(codings.join());
    if (codings.length > 0 && decoder === undefined) {
      answer.destroy();
      this.fail("the answer has a coding that cannot be looked into");
      return;
    }
    if (length !== undefined && this.take(Number(length))) {
      const content = replaceAll(await wholeBody(answer, Number(length)), exact, maxGrown);
      headers.push("Content-Length", String(content.length));
      begin();
      response.end(content);
      return;
    }
    if (length !== undefined) headers.push("Content-Length", length);
    begin();
    const out = new ReplacingStream(length === undefined ? exact : sameLength);
    // An answer that breaks off has to look broken off to the guest too.
    const done = (error?: Error | null): void => void (error && response.destroy());
    if (decoder === undefined) pipeline(answer, out, response, done);
    else pipeline(answer, decoder, out, response, done);
  }

  /** The server cannot be asked, or has answered badly. @param why never holds what it sent */
  private fail(why: string): void {
    const { response, passage } = this;
    this.up?.destroy();
    if (response.destroyed || response.writableEnded) return;
    passage.denied(`secret-server: ${why.slice(0, 300)}`);
    if (response.headersSent) response.destroy();
    else this.say(502, `cannot ask ${passage.to.host}: ${why.slice(0, 300)}`);
  }

  /** Answer in place of the server; the connection ends. */
  private say(status: number, text: string): void {
    const page = Buffer.from(`vmsan: ${text}.\n`);
    this.response.writeHead(status, {
      "Content-Type": "text/plain; charset=utf-8",
      "Content-Length": page.length,
      Connection: "close",
    });
    this.response.end(page);
  }
}
