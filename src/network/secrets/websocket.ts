/** A WebSocket between a guest and a server with secrets: two connections, joined message by message. */
import type { ClientRequest, IncomingMessage } from "node:http";
import { pipeline, type Duplex } from "node:stream";
import { WebSocket, WebSocketServer, type RawData } from "ws";
import { messageOf } from "../../model/errors.ts";
import { decoderOf } from "../../util/flow/coding.ts";
import { Claim, maxGrown, wholeBody, maxWhole } from "./bodies.ts";
import { puttingIn } from "./forms.ts";
import { incoming, judge, outgoing, outgoingPath, pairsOf, valuesOf } from "./heads.ts";
import type { Passage } from "./passage.ts";
import { replaceAll, replaceText, type Replacement } from "./replace.ts";

/** Longest message, in bytes. */
const maxMessage = 32 << 20;

/** Bytes that wait for a slow reader before the other side has to. */
const maxWaiting = 1 << 20;

/** Longest reason for an end, in bytes (RFC 6455, section 5.5). */
const maxReason = 123;

/** Milliseconds for the server to agree. */
const handshakeMs = 15_000;

/** Answer without a WebSocket, and end the connection. */
function refuse(socket: Duplex, status: string, headers: readonly string[], body: Buffer): void {
  const lines = pairsOf(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  const head = `HTTP/1.1 ${status}\r\n${lines.join("")}Connection: close\r\nContent-Length: ${body.length}\r\n\r\n`;
  socket.end(Buffer.concat([Buffer.from(head, "latin1"), body]), () => socket.destroy());
}

/** A text or binary message as one buffer. */
function bytesOf(data: RawData): Buffer {
  if (Array.isArray(data)) return Buffer.concat(data);
  return Buffer.isBuffer(data) ? data : Buffer.from(data);
}

/** With everything replaced; undefined when it becomes too long. */
function within(
  data: Buffer,
  replacements: readonly Replacement[],
  limit: number,
): Buffer | undefined {
  try {
    return replaceAll(data, replacements, limit);
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

/** Pass messages on, with everything replaced, and the end. @param claim holds what waits for a slow reader */
function relay(
  from: WebSocket,
  to: WebSocket,
  claim: Claim,
  replacements: (message: Buffer, binary: boolean) => readonly Replacement[],
): void {
  from.on("message", (data, binary) => {
    const message = bytesOf(data);
    const replaced = within(message, replacements(message, binary), message.length + maxGrown);
    if (replaced === undefined || !claim.take(replaced.length)) {
      from.close(1009);
      to.terminate();
      return;
    }
    to.send(replaced, { binary }, () => {
      claim.give(replaced.length);
      if (from.isPaused && to.bufferedAmount < maxWaiting) from.resume();
    });
    if (to.bufferedAmount > maxWaiting) from.pause();
  });
  from.on("close", (code, reason) => {
    // 1005 and 1006 stand for what was not said, and cannot be.
    if (code === 1006) to.terminate();
    else if (code === 1005) to.close();
    else to.close(code, within(reason, replacements(reason, false), maxReason));
  });
  // "close" follows.
  from.on("error", () => to.terminate());
}

/** Ask the server for what the guest has asked for, and join the two when it agrees. */
export function joinWebSocket(
  passage: Passage,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): void {
  socket.on("error", () => socket.destroy());
  const { to, secrets, takeOut } = passage;
  const { method = "", url = "", rawHeaders } = request;
  const judged = judge({ method, target: url, rawHeaders }, to);
  if ("status" in judged) {
    passage.denied(judged.rule);
    refuse(socket, `${judged.status} Refused`, [], Buffer.from(`vmsan: ${judged.text}.\n`));
    return;
  }
  const headers: Record<string, string> = {};
  for (const [name, value] of pairsOf(outgoing(rawHeaders, judged.host, secrets))) {
    if (/^(sec-websocket-|host$)/i.test(name)) continue;
    headers[name] = headers[name] === undefined ? value : `${headers[name]}, ${value}`;
  }
  const protocols = valuesOf(rawHeaders, "sec-websocket-protocol")
    .join(",")
    .split(",")
    .map((word) => replaceText(word.trim(), puttingIn(secrets, "header")))
    .filter((word) => word !== "");
  const scheme = to.scheme === "https" ? "wss" : "ws";
  const place = `${scheme}://${to.host}:${to.port}${outgoingPath(judged.path, secrets)}`;
  let server: WebSocket;
  try {
    server = new WebSocket(place, protocols, {
      headers,
      // Knows the address, and whom to trust.
      agent: passage.agent,
      // What is compressed could not be looked into.
      perMessageDeflate: false,
      maxPayload: maxMessage,
      handshakeTimeout: handshakeMs,
      followRedirects: false,
    });
  } catch (error) {
    // ws takes no such address or protocol; its message quotes them, and may hold a value.
    passage.denied("secret-malformed");
    refuse(socket, "400 Bad Request", [], Buffer.from(`vmsan: ${(error as Error).name}.\n`));
    return;
  }
  socket.on("close", () => server.terminate());
  let answer: IncomingMessage | undefined;
  server.on("upgrade", (response) => (answer = response));
  server.on("unexpected-response", (asked: ClientRequest, response: IncomingMessage) => {
    const { statusCode = 502, statusMessage = "", rawHeaders: raw } = response;
    const status = `${statusCode} ${replaceText(statusMessage, takeOut.exact)}`;
    const coding = valuesOf(raw, "content-encoding").join().trim().toLowerCase();
    const plain = coding === "" || coding === "identity";
    const decoder = plain ? undefined : decoderOf(coding);
    if (!plain && decoder === undefined) {
      passage.denied("secret-server: a coding that cannot be looked into");
      socket.destroy();
      asked.destroy();
      return;
    }
    if (decoder !== undefined) pipeline(response, decoder, () => undefined);
    wholeBody(decoder ?? response, maxWhole)
      .then((body) => {
        refuse(socket, status, incoming(raw, takeOut.exact), replaceAll(body, takeOut.exact));
      })
      .catch(() => socket.destroy())
      .finally(() => asked.destroy());
  });
  server.on("error", (error) => {
    if (socket.destroyed || socket.writableEnded) return;
    if (answer !== undefined) {
      socket.destroy();
      return;
    }
    const why = messageOf(error).slice(0, 300);
    passage.denied(`secret-server: ${why}`);
    const page = Buffer.from(`vmsan: cannot ask ${to.host}: ${why}.\n`);
    refuse(socket, "502 Bad Gateway", [], page);
  });
  server.on("open", () => {
    server.pause();
    const guests = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      perMessageDeflate: false,
      maxPayload: maxMessage,
      // Some servers take a key as a protocol's name.
      handleProtocols: () => replaceText(server.protocol, takeOut.exact) || false,
    });
    guests.on("headers", (lines) => {
      for (const [name, value] of pairsOf(incoming(answer?.rawHeaders ?? [], takeOut.exact))) {
        if (!/^sec-websocket-/i.test(name)) lines.push(`${name}: ${value}`);
      }
    });
    guests.handleUpgrade(request, socket, head, (guest) => {
      const claim = new Claim(passage.room);
      // Of a message that has begun: its end may never come.
      let begun = 0;
      socket.prependListener("data", ({ length }: Buffer) => {
        if (claim.take(length)) begun += length;
        else guest.terminate();
      });
      guest.on("message", () => {
        claim.give(begun);
        begun = 0;
      });
      socket.on("close", () => claim.end());
      relay(server, guest, claim, () => takeOut.exact);
      relay(guest, server, claim, (message, binary) => {
        const json = !binary && /^\s*[[{]/.test(message.subarray(0, 64).toString("latin1"));
        return puttingIn(secrets, "body", json ? "application/json" : "");
      });
      server.resume();
    });
  });
}
