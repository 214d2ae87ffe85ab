import { array, assert, nat, property } from "fast-check";
import { expect, test } from "vitest";
import { HttpGate } from "./http-gate.ts";

const gate = (): HttpGate => new HttpGate((host) => host === "a.test");
const head = (...lines: string[]): string => `${lines.join("\r\n")}\r\n\r\n`;
const get = (host: string): string => head("GET / HTTP/1.1", `Host: ${host}`);

/** What a text makes of a fresh gate: bytes passed, and why it stopped. */
function push(text: string): { passed: string; why: string | undefined } {
  const step = gate().push(Buffer.from(text, "latin1"));
  return { passed: Buffer.concat(step.forward).toString("latin1"), why: step.refused?.why };
}

test.each([
  ["plain", get("a.test")],
  ["with port and capitals", get("A.Test:80")],
  ["two requests", get("a.test") + get("a.test")],
  [
    "with a body",
    `${head("POST / HTTP/1.1", "Host: a.test", "Content-Length: 3")}abc${get("a.test")}`,
  ],
  [
    "chunked",
    `${head("POST / HTTP/1.1", "Host: a.test", "Transfer-Encoding: chunked")}3;x=y\r\nabc\r\n0\r\nTrailer: x\r\n\r\n${get("a.test")}`,
  ],
  ["absolute target", head("GET http://a.test/x HTTP/1.1", "Host: a.test")],
])("passes unchanged: %s", (_, text) => {
  expect(push(text)).toEqual({ passed: text, why: undefined });
});

test.each([
  ["another host", get("b.test"), "host"],
  ["no host", head("GET / HTTP/1.1", "X: y"), "malformed"],
  ["two hosts", head("GET / HTTP/1.1", "Host: a.test", "Host: b.test"), "malformed"],
  ["the same host twice", head("GET / HTTP/1.1", "Host: a.test", "Host: a.test"), "malformed"],
  ["host is an IPv6 literal", get("[::1]"), "malformed"],
  ["absolute target elsewhere", head("GET http://b.test/ HTTP/1.1", "Host: a.test"), "malformed"],
  [
    "absolute target with user part",
    head("GET http://a.test@b.test/ HTTP/1.1", "Host: a.test"),
    "malformed",
  ],
  ["connect", head("CONNECT a.test:443 HTTP/1.1", "Host: a.test"), "malformed"],
  [
    "two lengths",
    head("POST / HTTP/1.1", "Host: a.test", "Content-Length: 3", "Content-Length: 3"),
    "malformed",
  ],
  ["length list", head("POST / HTTP/1.1", "Host: a.test", "Content-Length: 3, 3"), "malformed"],
  ["signed length", head("POST / HTTP/1.1", "Host: a.test", "Content-Length: +3"), "malformed"],
  [
    "length and chunked",
    head("POST / HTTP/1.1", "Host: a.test", "Content-Length: 3", "Transfer-Encoding: chunked"),
    "malformed",
  ],
  [
    "another coding",
    head("POST / HTTP/1.1", "Host: a.test", "Transfer-Encoding: gzip, chunked"),
    "malformed",
  ],
  [
    "chunked in HTTP/1.0",
    head("POST / HTTP/1.0", "Host: a.test", "Transfer-Encoding: chunked"),
    "malformed",
  ],
  [
    "host for neighbours only",
    head("GET / HTTP/1.1", "Host: a.test", "Connection: close, Host"),
    "malformed",
  ],
  ["vertical tab", head("GET / HTTP/1.1", "X: a\x0bHost: b.test", "Host: a.test"), "malformed"],
  ["control character in the target", head("GET /\x01 HTTP/1.1", "Host: a.test"), "malformed"],
  ["folded header", head("GET / HTTP/1.1", "X: a", " Host: b.test", "Host: a.test"), "malformed"],
  ["space before colon", head("GET / HTTP/1.1", "Host : b.test", "Host: a.test"), "malformed"],
  ["lone line feed", head("GET / HTTP/1.1", "X: y\nHost: b.test", "Host: a.test"), "malformed"],
  ["NUL", head("GET / HTTP/1.1", "X: \0", "Host: a.test"), "malformed"],
  ["HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "malformed"],
  ["tunnelled TLS", "\x16\x03\x01\x02\x00\x01\r\n\r\n", "malformed"],
  ["endless head", `GET / HTTP/1.1\r\nX: ${"x".repeat(40_000)}`, "too-large"],
])("refuses with nothing passed: %s", (_, text, why) => {
  expect(push(text)).toEqual({ passed: "", why });
});

test.each([
  ["chunk size with a sign", "+3\r\nabc\r\n"],
  ["chunk size with 0x", "0x3\r\nabc\r\n"],
  ["chunk longer than said", "3\r\nabcd\r\n"],
])("refuses in the body: %s", (_, body) => {
  expect(
    push(head("POST / HTTP/1.1", "Host: a.test", "Transfer-Encoding: chunked") + body).why,
  ).toBe("malformed");
});

test("an upgrade opens a tunnel only when the server agrees", () => {
  const request = head(
    "GET / HTTP/1.1",
    "Host: a.test",
    "Connection: upgrade",
    "Upgrade: websocket",
  );
  const agreed = gate();
  expect(Buffer.concat(agreed.push(Buffer.from(`${request}raw`)).forward).toString()).toBe(request);
  expect(agreed.waiting).toBe(true);
  expect(Buffer.concat(agreed.upgraded(101, "WebSocket").forward).toString()).toBe("raw");
  const refused = gate();
  refused.push(Buffer.from(request));
  expect(refused.upgraded(200, "websocket").refused).toBeUndefined();
  expect(refused.push(Buffer.from(get("a.test"))).refused?.why).toBe("malformed");
  const other = gate();
  other.push(Buffer.from(request));
  expect(other.upgraded(101, "h2c").refused?.why).toBe("upgrade");
});

test("a tunnel that begins as HTTP does is cut before a whole request is through", () => {
  for (const text of [get("b.test"), "PRI * HTTP/2.0\r\n\r\n", `\r\n${get("b.test")}`]) {
    const tunnel = gate();
    const asked = ["GET / HTTP/1.1", "Host: a.test", "Connection: upgrade", "Upgrade: websocket"];
    tunnel.push(Buffer.from(head(...asked)));
    tunnel.upgraded(101, "websocket");
    let why: string | undefined;
    let passed = "";
    for (const byte of Buffer.from(text)) {
      const step = tunnel.push(Buffer.of(byte));
      passed += Buffer.concat(step.forward).toString();
      why ??= step.refused?.why;
    }
    expect({ why, whole: passed.includes("HTTP/") }).toEqual({ why: "upgrade", whole: false });
  }
});

test.each([
  [["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA"], []],
  [["Connection: upgrade", "Upgrade: websocket, h2c"], []],
  [["Connection: upgrade", "Upgrade: websocket", "Upgrade: h2c"], []],
  [["Connection: upgrade", "Upgrade: websocket", "HTTP2-Settings: AAMA"], []],
  [["Connection: close, upgrade", "Upgrade: TLS/1.2"], ["connection: close"]],
  [["Upgrade: websocket"], []],
])(
  "%j is asked without the offer of another protocol, and the next request is checked",
  (fields, left) => {
    const offered = head("GET /x HTTP/1.1", "Host: a.test", ...fields, "Accept: */*");
    const plain = head("GET /x HTTP/1.1", "host: a.test", "accept: */*", ...left);
    expect(push(offered + get("a.test"))).toEqual({
      passed: plain + get("a.test"),
      why: undefined,
    });
    expect(push(offered + get("b.test"))).toEqual({ passed: plain, why: "host" });
  },
);

test("cutting the stream anywhere changes nothing", () => {
  const body = `${head("POST / HTTP/1.1", "Host: a.test", "Transfer-Encoding: chunked")}5\r\nhello\r\n0\r\n\r\n`;
  const text = Buffer.from(get("a.test") + body + get("a.test") + get("b.test") + get("a.test"));
  const allowed = text.subarray(0, text.length - get("b.test").length - get("a.test").length);
  assert(
    property(array(nat(text.length), { maxLength: 12 }), (cuts) => {
      const at = [0, ...cuts.sort((a, b) => a - b), text.length];
      const one = gate();
      const passed: Buffer[] = [];
      let why: string | undefined;
      for (const [index, start] of at.slice(0, -1).entries()) {
        const step = one.push(text.subarray(start, at[index + 1]));
        passed.push(...step.forward);
        why ??= step.refused?.why;
      }
      expect(Buffer.concat(passed).equals(allowed)).toBe(true);
      expect(why).toBe("host");
    }),
    { numRuns: 300 },
  );
});
