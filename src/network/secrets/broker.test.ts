/** What a guest may try with a secret: the server gets the value where it should, and nobody else does. */
import { once } from "node:events";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { parsePolicy } from "../policy/parse.ts";
import { guestWith, readAll } from "./testing/guest.ts";
import {
  api,
  ask,
  fill,
  get,
  guest,
  hidden,
  inHead,
  other,
  plain,
  post,
  seen,
  setUp,
  tearDown,
  unproven,
  value,
} from "./testing/stage.ts";

afterAll(tearDown);
beforeAll(setUp);
afterEach(() => {
  seen.length = 0;
});

describe("the server gets the value", () => {
  test.each([
    ["in a header", () => get("/echo", "Authorization: Bearer $KEY"), inHead],
    ["in any header", () => get("/echo", "X-Api-Key: a $KEY b"), `a ${inHead} b`],
    ["twice in a header", () => get("/echo", "X-Both: $KEY,$KEY"), `${inHead},${inHead}`],
    [
      "in Basic credentials",
      () => get("/echo", "Authorization: Basic $BASIC"),
      Buffer.from(`user:${value}`).toString("base64"),
    ],
    ["in a cookie", () => get("/echo", "Cookie: a=1; key=$KEY"), `key=${inHead}`],
    ["over HTTP/1.0", () => "GET /echo HTTP/1.0\nHost: $HOST\nX-Key: $KEY\n\n", inHead],
    ["of header only", () => get("/echo", "X-Key: $HEADER_ONLY"), "only in heads"],
  ])("%s", async (_, text, expected) => {
    const got = await ask(text());
    expect(got).toMatch(/^HTTP\/1\.1 200 /);
    expect(seen).toHaveLength(1);
    expect(seen[0]?.raw).toContain(expected);
  });

  test.each([
    ["in the query", () => get("/echo?key=$KEY&b=1"), `/echo?key=`],
    ["in the path", () => get("/bot$KEY/send"), "/bot"],
    ["with an absolute target", () => get(`https://$HOST/echo?$KEY`), "/echo?"],
  ])("%s", async (_, text, begin) => {
    await ask(text());
    const [request] = seen;
    expect(request?.url.startsWith(begin)).toBe(true);
    expect(decodeURIComponent(request?.url ?? "")).toContain(value);
  });

  test.each([
    ["as it is", "a=$KEY;", "text/plain", `a=${inHead};`],
    [
      "in JSON",
      '{"k":"$KEY"}',
      "application/json",
      Buffer.from(JSON.stringify({ k: value })).toString("latin1"),
    ],
    ["in a form", "k=$KEY&l=1", "application/x-www-form-urlencoded", "k=s3cr3t%2F%2B%22%26%3C"],
  ])("in a body %s, with its length made right", async (_, body, type, expected) => {
    await ask(post(body, `Content-Type: ${type}`));
    expect(seen[0]?.body).toContain(expected);
  });

  test("in a body in chunks, with the placeholder across them", async () => {
    const half = 20;
    const { KEY = "" } = guest.placeholders;
    const chunks = [KEY.slice(0, half), KEY.slice(half), "z"];
    const body = chunks.map((chunk) => `${chunk.length.toString(16)}\n${chunk}\n`).join("");
    await ask(
      `POST /echo HTTP/1.1\nHost: $HOST\nConnection: close\nTransfer-Encoding: chunked\n\n${body}0\n\n`,
    );
    expect(seen[0]?.body).toBe(`${inHead}z`);
  });

  test("sent byte by byte", async () => {
    await ask(post("k=$KEY", "X-Key: $KEY"), { pieces: 1 });
    expect(seen[0]?.raw).toContain(inHead);
    expect(seen[0]?.body).toBe(`k=${inHead}`);
  });

  test("after Expect: 100-continue", async () => {
    const got = await ask(post("k=$KEY", "Expect: 100-continue"));
    expect(got).toMatch(/^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 /);
    expect(seen[0]?.body).toBe(`k=${inHead}`);
  });

  test("in each of several requests, also in one piece", async () => {
    const keep = "GET /echo HTTP/1.1\nHost: $HOST\nX-Key: $KEY\n\n";
    const got = await ask(keep + keep + get("/echo", "X-Key: $KEY"));
    expect(got.match(/HTTP\/1\.1 200 /g)).toHaveLength(3);
    expect(seen.map(({ raw }) => raw.includes(inHead))).toEqual([true, true, true]);
  });

  test("at a name below a wildcard, and not at the wildcard's own", async () => {
    const deep = { name: "a.deep.test" };
    // The server's own certificate is another one's: nothing is sent.
    expect(await ask(get("/echo", "X-Key: $KEY"), deep)).toMatch(/^HTTP\/1\.1 502 /);
    await expect(ask(get("/echo", "X-Key: $KEY"), { name: "deep.test" })).rejects.toThrow();
    expect(seen.filter(({ raw }) => raw.includes(inHead))).toEqual([]);
  });

  test("by plain HTTP where the domain says so", async () => {
    const socket = await guest.connect(plain.port);
    const text = fill(get("/echo", "X-Key: $KEY"), `plain.test:${plain.port}`);
    socket.write(text.slice(0, 50));
    await new Promise((resolve) => setTimeout(resolve, 5));
    socket.write(text.slice(50));
    hidden(await readAll(socket));
    expect(seen[0]?.raw).toContain(inHead);
  });
});

describe("the value goes nowhere else", () => {
  const untold = (): void => {
    for (const { raw, url, body } of seen) hidden(`${raw}${url}${body}`);
  };

  test.each([
    ["a secret of another domain", get("/echo?$ELSEWHERE", "X: $ELSEWHERE"), 200],
    ["header only: in the query", get("/echo?$HEADER_ONLY"), 200],
    ["header only: in the body", post("$HEADER_ONLY"), 200],
    ["an unknown placeholder", get("/echo", "X: vmsanSecret0123456789"), 200],
    ["the host of another server", get("/echo", "X: $KEY").replace("$HOST", "other.test"), 421],
    [
      "two hosts",
      get("/echo", "X: $KEY").replace("Host: $HOST", "Host: $HOST\nHost: other.test"),
      /40\d|421/,
    ],
    ["another server as absolute target", get("https://other.test/echo", "X: $KEY"), 421],
    ["no host", "GET /echo HTTP/1.1\nX: $KEY\n\n", 400],
    ["TRACE", get("/echo", "X: $KEY").replace("GET", "TRACE"), 405],
    ["CONNECT", "CONNECT other.test:443 HTTP/1.1\nHost: $HOST\nX: $KEY\n\n", 405],
    [
      "two lengths",
      "POST / HTTP/1.1\nHost: $HOST\nX: $KEY\nContent-Length: 1\nContent-Length: 2\n\nab",
      400,
    ],
    [
      "length and chunks",
      "POST / HTTP/1.1\nHost: $HOST\nX: $KEY\nContent-Length: 4\nTransfer-Encoding: chunked\n\n0\n\n",
      400,
    ],
    [
      "a coding that is not chunked",
      "POST / HTTP/1.1\nHost: $HOST\nConnection: close\nX: $KEY\nTransfer-Encoding: gzip, chunked\n\n0\n\n",
      501,
    ],
    ["a head that is too long", get("/", `X: $KEY${"a".repeat(70_000)}`), 431],
    ["the preface of HTTP/2", "PRI * HTTP/2.0\n\nSM\n\n", 400],
    ["no HTTP at all", "\u0001\u0002$KEY\n\n", 400],
  ])("%s", async (_, text, status) => {
    const got = await ask(text);
    expect(got.slice(9, 12)).toMatch(status instanceof RegExp ? status : new RegExp(`${status}`));
    untold();
  });

  test("the certificate of another server", async () => {
    const got = await ask(get("/echo", "X: $KEY"), { port: unproven.port });
    expect(got).toMatch(/^HTTP\/1\.1 502 /);
    expect(got).toContain("else.test");
    expect(seen).toEqual([]);
  });

  test("another name at the same address: passes as it is, with its own certificate", async () => {
    await expect(guest.secure(other.port, "other.test")).rejects.toThrow(/verify|self.signed/i);
    expect(seen).toEqual([]);
  });

  test("plain HTTP to a domain that is for HTTPS", async () => {
    const socket = await guest.connect(plain.port);
    socket.write(fill(get("/echo", "X: $KEY"), `api.test:${plain.port}`));
    await readAll(socket);
    expect(seen).toHaveLength(1);
    // The server's answer holds what the server knows; what it was told is the placeholder.
    expect(seen[0]?.raw).toContain(guest.placeholders["KEY"]);
    untold();
  });

  test("plain HTTP to an address that the name does not lead to", async () => {
    const liar = await guestWith({
      secrets: [
        {
          name: "KEY",
          value,
          places: ["header"],
          domains: [{ scheme: "http", host: "plain.test", port: plain.port }],
        },
      ],
      leadsTo: () => false,
    });
    const socket = await liar.connect(plain.port);
    const { KEY } = liar.placeholders;
    socket.write(`GET / HTTP/1.1\r\nHost: plain.test:${plain.port}\r\nX: ${KEY}\r\n\r\n`);
    expect(await readAll(socket)).toMatch(/^HTTP\/1\.1 403 /);
    expect(seen).toEqual([]);
    liar.close();
  });

  test("a second request for another host on a connection of plain HTTP", async () => {
    const socket = await guest.connect(plain.port);
    const first = fill("GET /echo HTTP/1.1\nHost: $HOST\n\n", `plain.test:${plain.port}`);
    socket.write(first + fill(get("/echo", "X: $KEY"), "evil.test"));
    const got = await readAll(socket);
    expect(got).toContain("421 Misdirected Request");
    expect(seen).toHaveLength(1);
  });

  test("a placeholder of another VM, a clone's source say", async () => {
    const clone = await guestWith({
      secrets: [
        {
          name: "KEY",
          value,
          places: ["header"],
          domains: [{ scheme: "https", host: "api.test", port: api.port }],
        },
      ],
    });
    const socket = await clone.secure(api.port, "api.test");
    socket.write(fill(get("/as/html", "X: $KEY"), `api.test:${api.port}`));
    hidden(await readAll(socket));
    untold();
    clone.close();
  });

  test("an authority that is not the VM's own: a guest does not trust another VM's", async () => {
    const stranger = await guestWith({ secrets: [] });
    const { authority } = stranger.secrets.material;
    const socket = await guest.connect(api.port);
    const { connect } = await import("node:tls");
    const tried = connect({ socket, servername: "api.test", ca: authority.certificate });
    await expect(once(tried, "secureConnect")).rejects.toThrow();
    stranger.close();
  });

  test("TLS that speaks HTTP/2 alone", async () => {
    await expect(guest.secure(api.port, "api.test", ["h2"])).rejects.toThrow(/alert/i);
    const both = await guest.secure(api.port, "api.test", ["h2", "http/1.1"]);
    expect(both.alpnProtocol).toBe("http/1.1");
    both.destroy();
  });

  test("under a policy that does not allow the domain", async () => {
    const closed = await guestWith({
      secrets: [
        {
          name: "KEY",
          value,
          places: ["header"],
          domains: [{ scheme: "https", host: "api.test", port: api.port }],
        },
      ],
      policy: parsePolicy({ allowedDomains: "other.test", allowedCidrs: "127.0.0.1/32" }),
    });
    await expect(closed.secure(api.port, "api.test")).rejects.toThrow();
    expect(closed.decisions.at(-1)).toMatchObject({ verdict: "denied", rule: "server-name" });
    closed.close();
  });
});
