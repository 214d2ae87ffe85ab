/**
 * A gateway as strangers meet it: every place that is not in the tables of routes (test/gateway/e2b-routes.test.ts, test/e2e/faces/serve.test.ts) by every kind of key
 * and token, and bytes that are no request, or two. Guests are processes of this host.
 */
import { once } from "node:events";
import { connect as connectHttp2, createServer as createHttp2Server } from "node:http2";
import { connect } from "node:net";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Sandbox, Volume } from "e2b";
import { fakeDaemon } from "../../src/daemon/testing.ts";
import type { FakeDaemon } from "../../src/daemon/testing.ts";
import { Keys } from "../../src/gateway/access/keys.ts";
import type { NewKey } from "../../src/gateway/access/keys.ts";
import { startGateway } from "../../src/gateway/gateway.ts";
import type { ListeningGateway } from "../../src/gateway/http/server.ts";
import { layoutOf } from "../../src/util/paths.ts";
import { rawExchange } from "../fixtures/raw-exchange.ts";

let daemon: FakeDaemon;
let gateway: ListeningGateway;
let keys: Keys;
/** Texts of keys; the one of `revoked` and what it was given are of before. */
const key: Record<string, string> = {};
let sandbox: Sandbox;
let volume: Volume;
/** What keys were given for the sandbox: tokens of its data plane and ports, an address of a file; for the volume its token. */
interface Given {
  data: string;
  traffic: string;
  address: string;
  volume: string;
}
const given: Record<string, Given> = {};

async function makeKey(name: string, wish: NewKey): Promise<string> {
  const { key: made, text } = await keys.create(wish);
  key[name] = `e2b_${text}`;
  return made.id;
}

const connection = (name: string): { apiKey: string; apiUrl: string; sandboxUrl: string } => ({
  apiKey: key[name] ?? "",
  apiUrl: gateway.url,
  sandboxUrl: gateway.url,
});

/** Have a key be given what it can be. */
async function give(name: string): Promise<void> {
  const as = connection(name);
  const reply = await fetch(`${gateway.url}/v2/sandboxes/${sandbox.sandboxId}/connect`, {
    method: "POST",
    headers: { "x-api-key": as.apiKey },
    body: "{}",
  });
  const told = (await reply.json()) as { envdAccessToken: string; trafficAccessToken: string };
  const mine = await Sandbox.connect(sandbox.sandboxId, as);
  given[name] = {
    data: told.envdAccessToken,
    traffic: told.trafficAccessToken,
    address: await mine.downloadUrl("/etc/hostname"),
    volume: (await Volume.getInfo(volume.volumeId, as)).token,
  };
}

beforeAll(async () => {
  daemon = await fakeDaemon();
  gateway = await startGateway({ dir: daemon.dir, listen: "127.0.0.1:0", driver: "fake" });
  keys = new Keys(layoutOf(daemon.dir).gateway);
  await makeKey("ours", { project: "ours" });
  await makeKey("other", { project: "other" });
  const revoked = await makeKey("revoked", { project: "ours" });
  const expired = await makeKey("expired", { project: "ours", lifetimeMs: 1_000_000 });
  const network = { allowPublicTraffic: false };
  sandbox = await Sandbox.create("base", { ...connection("ours"), network });
  volume = await Volume.create("data", connection("ours"));
  for (const name of ["ours", "revoked", "expired"]) await give(name);
  await keys.remove(revoked);
  await keys.remove(expired);
  await makeKey("expired", { project: "ours", lifetimeMs: 1 });
});

afterAll(async () => {
  await gateway?.close();
  await daemon?.close();
});

/** The status of a request's answer, 0 for a connection that was closed without any. */
async function status(line: string, headers: Record<string, string | undefined>): Promise<number> {
  const lines = Object.entries({ host: "localhost", connection: "close", ...headers })
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}: ${value}\r\n`);
  const socket = connect(gateway.port, "127.0.0.1");
  socket.on("error", () => undefined);
  socket.write(`${line} HTTP/1.1\r\n${lines.join("")}\r\n`);
  let seen = "";
  for await (const chunk of socket) {
    seen += String(chunk);
    // What was switched, or streams, goes on.
    if (seen.includes("\r\n\r\n")) break;
  }
  return Number(/^HTTP\/1\.1 (\d{3})/.exec(seen)?.[1] ?? 0);
}

const STRANGERS = ["", "x", `e2b_${"0".repeat(48)}`];

test("no place opens without a good key of the project, nor by what such a key was given once", async () => {
  const id = sandbox.sandboxId;
  const socket = {
    connection: "upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": Buffer.alloc(16).toString("base64"),
  };
  const streams = `GET /v1/vms/${id}/v1/streams`;
  /** What of a key is shown where. */
  const places: [string, (text: string, was?: Given) => [string, Record<string, string>]][] = [
    ["/metrics", (text) => ["GET /metrics", { "x-api-key": text }]],
    ["/mcp", (text) => ["POST /mcp", { authorization: `Bearer ${text}`, "content-length": "0" }]],
    ["/mcp, the end of a session", (text) => ["DELETE /mcp", { "x-api-key": text }]],
    ["streams", (text) => [streams, { ...socket, upgrade: "vmsan-stream", "x-api-key": text }]],
    [
      "streams for browsers",
      (text) => [
        streams,
        {
          ...socket,
          upgrade: "websocket",
          "sec-websocket-protocol": `vmsan-stream, vmsan-key.${text}`,
        },
      ],
    ],
    ["a port, by key", (text) => ["GET /", { host: `80-${id}.localhost`, "x-api-key": text }]],
    [
      "a port, by token",
      (text, was) => [
        "GET /",
        {
          "e2b-sandbox-id": id,
          "e2b-sandbox-port": "80",
          "e2b-traffic-access-token": was?.traffic ?? text,
        },
      ],
    ],
    [
      "a port, switched",
      (text, was) => [
        "GET /",
        {
          ...socket,
          host: `80-${id}.localhost`,
          upgrade: "x",
          "vmsan-traffic-token": was?.traffic ?? text,
        },
      ],
    ],
    ...[
      "GET /files?path=/etc/hostname",
      "POST /files?path=/tmp/x",
      "GET /envs",
      "GET /metrics",
    ].map((line): (typeof places)[number] => [
      `envd: ${line}`,
      (text, was) => [
        line,
        {
          host: `49983-${id}.localhost`,
          "content-length": "0",
          "x-access-token": was?.data ?? text,
        },
      ],
    ]),
    ...["process.Process/List", "process.Process/Start", "filesystem.Filesystem/Stat"].map(
      (method): (typeof places)[number] => [
        `envd: ${method}`,
        (text, was) => [
          `POST /${method}`,
          {
            "e2b-sandbox-id": id,
            "e2b-sandbox-port": "49983",
            "content-length": "0",
            "x-access-token": was?.data ?? text,
          },
        ],
      ],
    ),
    [
      "envd, by its token alone",
      (text, was) => [
        "POST /process.Process/List",
        { "content-length": "0", "x-access-token": was?.data ?? text },
      ],
    ],
    [
      "a signed address",
      (_text, was) => {
        const { pathname, search } = new URL(
          was?.address ?? `${gateway.url}/files?path=/etc/hostname`,
        );
        return [`GET ${pathname}${search}`, {}];
      },
    ],
    ...["path?path=/", "dir?path=/", "file?path=/x"].map((what): (typeof places)[number] => [
      `a volume's ${what}`,
      (text, was) => [
        `GET /volumecontent/${volume.volumeId}/${what}`,
        { authorization: `Bearer ${was?.volume ?? text}` },
      ],
    ]),
    [
      "an upload",
      () => [`PUT /e2b/uploads/${"0".repeat(64)}?expires=9999999999999`, { "content-length": "0" }],
    ],
  ];
  const kinds: [string, Given | undefined][] = [
    ...STRANGERS.map((text): [string, undefined] => [text, undefined]),
    [key["revoked"] ?? "", undefined],
    [key["expired"] ?? "", undefined],
    ["", given["revoked"]],
    ["", given["expired"]],
  ];
  const opened: unknown[] = [];
  for (const [place, ask] of places) {
    for (const [text, was] of kinds) {
      const answer = await status(...ask(text, was));
      if (answer !== 401 && !(place.startsWith("a port, by token") && answer === 403))
        opened.push([place, text, was, answer]);
    }
    // Another project's key learns nothing either.
    const answer = await status(...ask(key["other"] ?? ""));
    if (!place.startsWith("/mcp") && ![400, 401, 403, 404].includes(answer))
      opened.push([place, "other", answer]);
  }
  expect(opened).toEqual([]);
  // The table can open what it asks for: its own key gets further everywhere but to the metrics of the whole host.
  const closed: unknown[] = [];
  for (const [place, ask] of places) {
    const [line, headers] = ask(key["ours"] ?? "", given["ours"]);
    const answer = await status(line, headers);
    if (!["/metrics", "an upload"].includes(place) && [0, 401, 403].includes(answer))
      closed.push([place, answer]);
  }
  expect(closed).toEqual([]);
});

test("what is no request, or two, is refused, and others are served on", async () => {
  const good = "GET /v1/vms HTTP/1.1\r\nhost: localhost\r\n";
  const smuggled = `GET /v1/vms HTTP/1.1\r\nhost: localhost\r\nx-api-key: ${key["ours"]}\r\n\r\n`;
  const post = "POST /v1/vms HTTP/1.1\r\nhost: localhost\r\n";
  const refused: string[] = [
    `${post}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
    `${post}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n${smuggled}`,
    `${post}content-length: 5\r\ncontent-length: 6\r\n\r\n12345${smuggled}`,
    `${post}content-length: 5, 5\r\n\r\n12345${smuggled}`,
    `${post}content-length: +5\r\n\r\n12345${smuggled}`,
    `${post}content-length: 0x5\r\n\r\n12345${smuggled}`,
    `${post}content-length: -1\r\n\r\n${smuggled}`,
    `${post}content-length: 99999999999999999999\r\n\r\n${smuggled}`,
    `${post}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n${smuggled}`,
    `${post}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n${smuggled}`,
    `${post}transfer-encoding : chunked\r\n\r\n0\r\n\r\n${smuggled}`,
    `${post}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n${smuggled}`,
    `${post}transfer-encoding: chunked\r\n\r\n-1\r\n${smuggled}`,
    `${post}transfer-encoding: chunked\r\n\r\n1;${"x".repeat(70_000)}\r\na\r\n0\r\n\r\n`,
    `${good}x: a\r\n folded: b\r\n\tc\r\n\r\n`,
    `${good}x: a\0b\r\n\r\n`,
    `${good}x y: a\r\n\r\n`,
    `${good}: a\r\n\r\n`,
    `${good}x: a\rb: c\r\n\r\n`,
    `${good}host: other.localhost\r\n\r\n`,
    "GET /v1/vms HTTP/1.1\nhost: localhost\n\n",
    "GET /v1/vms\r\n\r\n",
    "GET /v1/vms HTTP/2.0\r\nhost: localhost\r\n\r\n",
    "GET /v1/vms HTTP/1.1 x\r\nhost: localhost\r\n\r\n",
    "CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "\0\0\0\0",
    "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
  ];
  const served: string[] = [];
  for (const bytes of refused) {
    const seen = await rawExchange(gateway.port, bytes);
    if (/HTTP\/1\.1 [23]/.test(seen.replaceAll("HTTP/1.1 401", "")) || seen.includes('"vms"'))
      served.push(bytes, seen);
  }
  expect(served).toEqual([]);
  // Other ways to write a path are other paths: nothing of them opens anything.
  for (const path of [
    "//v1/vms",
    "/./v1/vms",
    "/healthz/../v1/vms",
    "/ui/..%2fv1/vms",
    "/ui/../metrics",
    "/openapi.json/../v1/vms",
    "/V1/vms",
    "/v1%2fvms",
    "/v1/vms;x",
    "/v1\\vms",
    "/v1/vms%00",
    "http://localhost/v1/vms",
    "http://evil.example/v1/vms",
    "/metrics%20",
    "*",
  ]) {
    const answer = await status(`GET ${path}`, {});
    expect([path, [400, 401, 404].includes(answer), answer]).toEqual([path, true, answer]);
  }
  expect(await status("GET /v1/vms", { "x-api-key": key["ours"] })).toBe(200);
});

test("bodies of any bytes are refused in words by every face, and by the guest's services", async () => {
  const bodies = [
    "",
    "null",
    "[]",
    "{",
    '"x"',
    `{"a":${"[".repeat(50_000)}`,
    `{"__proto__":{"admin":true},"templateID":7}`,
    "\u0000\u00ff\ud800",
    `{"templateID":"${"x".repeat(5000)}"}`,
  ];
  const paths = [
    "/v1/vms",
    "/v1/networks",
    "/v2/sandboxes",
    "/templates",
    "/templates/tags",
    `/sandboxes/${sandbox.sandboxId}/timeout`,
    `/sandboxes/${sandbox.sandboxId}/network`,
    "/volumes",
    "/mcp",
    "/process.Process/SendInput",
    "/process.Process/Start",
    "/filesystem.Filesystem/Move",
    "/filesystem.Filesystem/WatchDir",
  ];
  for (const path of paths) {
    for (const body of bodies) {
      const answer = await fetch(gateway.url + path, {
        method: path.endsWith("network") ? "PUT" : "POST",
        headers: {
          "x-api-key": key["ours"] ?? "",
          "content-type": "application/json",
          ...(path.includes(".")
            ? {
                "e2b-sandbox-id": sandbox.sandboxId,
                "e2b-sandbox-port": "49983",
                "x-access-token": given["ours"]?.data ?? "",
              }
            : {}),
        },
        body,
      });
      await answer.arrayBuffer();
      expect([path, body.slice(0, 30), answer.status < 500 || answer.status === 501]).toEqual([
        path,
        body.slice(0, 30),
        true,
      ]);
    }
  }
  expect(await sandbox.isRunning()).toBe(true);
});

test("what is not offered, or would write a header of its own into a request, is refused", async () => {
  for (const [wish, words] of [
    [{ iam: { tokens: { a: { audience: "b" } } } }, /not offered/],
    [{ network: { maskRequestHost: "a\r\nx: y" } }, /maskRequestHost/],
    [{ network: { egressProxy: { address: "127.0.0.1:1" } } }, /not offered/],
    [
      { network: { rules: { "a.example": [{ transform: { headers: { a: "b" } } }] } } },
      /not offered/,
    ],
  ] as const) {
    const answer = await fetch(`${gateway.url}/v2/sandboxes`, {
      method: "POST",
      headers: { "x-api-key": key["ours"] ?? "" },
      body: JSON.stringify({ templateID: "base", ...wish }),
    });
    expect([answer.status, await answer.text()]).toEqual([400, expect.stringMatching(words)]);
  }
});

test("a server that speaks HTTP/2 alone is reached by it, and others are told why not", async () => {
  const server = createHttp2Server().on("stream", (stream, headers) => {
    stream.respond({ ":status": 200, "x-authority": String(headers[":authority"]) });
    stream.pipe(stream);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const authority = `${port}-${sandbox.sandboxId}.localhost`;
  const client = connectHttp2(gateway.url);
  const ask = async (method: string, body?: string): Promise<unknown[]> => {
    const request = client.request({
      ":method": method,
      ":path": "/",
      ":authority": authority,
      "x-api-key": key["ours"] ?? "",
    });
    const [headers] = (await once(request.end(body), "response")) as [Record<string, unknown>];
    let text = "";
    for await (const part of request.setEncoding("utf8")) text += String(part);
    return [headers[":status"], headers["x-authority"], text];
  };
  try {
    const older = await fetch(gateway.url, {
      headers: {
        "vmsan-vm": sandbox.sandboxId,
        "vmsan-port": String(port),
        "x-api-key": key["ours"] ?? "",
      },
    });
    expect([older.status, await older.text()]).toEqual([
      502,
      expect.stringContaining("HTTP/2 alone"),
    ]);
    expect(await ask("GET")).toEqual([200, authority, ""]);
    expect(await ask("POST", "a body")).toEqual([200, authority, "a body"]);
  } finally {
    client.close();
    server.close();
  }
});

test("a client that sends byte by byte, or reads nothing, keeps nobody from being served", async () => {
  const slow = connect(gateway.port, "127.0.0.1");
  slow.on("error", () => undefined);
  slow.write(
    `POST /process.Process/Start HTTP/1.1\r\nhost: 49983-${sandbox.sandboxId}.localhost\r\n` +
      `x-access-token: ${given["ours"]?.data}\r\ncontent-type: application/connect+json\r\ntransfer-encoding: chunked\r\n\r\n`,
  );
  // A message of 16 MiB, of which all but the last byte comes, the rest of it in pieces of one byte.
  const head = Buffer.from([0, 1, 0, 0, 0]);
  const body = Buffer.alloc((16 << 20) - 5000, 32);
  const chunk = (bytes: Buffer): void => {
    slow.write(`${bytes.length.toString(16)}\r\n`);
    slow.write(bytes);
    slow.write("\r\n");
  };
  chunk(head);
  chunk(body);
  for (let i = 0; i < 4000; i += 1) chunk(body.subarray(0, 1));
  if (slow.writableNeedDrain) await once(slow, "drain");
  expect(await sandbox.files.exists("/etc/hostname")).toBe(true);
  slow.destroy();
});

test("clients of a gateway of this machine are sent to this machine, not to E2B's own hosts", async () => {
  const host = sandbox.getHost(3000);
  expect(host).toBe(`3000-${sandbox.sandboxId}.localhost:${new URL(gateway.url).port}`);
});
