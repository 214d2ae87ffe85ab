/** What a node answers the API server and kubectl, with a VM of the fake driver and clients written for this test. */
import { createHash, randomBytes } from "node:crypto";
import { createServer } from "node:net";
import type { AddressInfo, Server } from "node:net";
import { request } from "node:https";
import type { RequestOptions } from "node:https";
import { join } from "node:path";
import { Writable } from "node:stream";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { WebSocket, createWebSocketStream } from "ws";
import { Authority } from "../../../test/fixtures/certificates.ts";
import type { Issued } from "../../../test/fixtures/certificates.ts";
import { booted, installation, layout, temporary } from "../../../test/fixtures/ladder.ts";
import { makeImage, tarOf } from "../../../test/registry/fixture.ts";
import { listStreams } from "../../agent/commands.ts";
import { VmsanError } from "../../model/errors.ts";
import type { ApiServer } from "../../kube/api-server.ts";
import type { Attached, PodLogOptions, RunningPod, RunningPods } from "../pods/running.ts";
import { serveKubelet } from "./server.ts";
import type { KubeletServer } from "./server.ts";
import { encodeControl, encodeNumbers } from "./spdy/frames.ts";
import { DICTIONARY } from "./spdy/headers.ts";
import { SpdyClient, askSpdy } from "./testing/spdy-client.ts";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 240_000 });

const NODE = "host-1";
const place = temporary();
const made = installation("kernel");
const image = layout(place, makeImage({ layers: [tarOf("file", Buffer.from("content"))] }));
const guest = booted(made, () => ({ image: image.source, driver: "fake", name: "web" }));

/** Words by which the test's API server knows callers: `allowed` and `looker` have tokens, the rest certificates. */
const reviews: { path: string; spec: Record<string, unknown> }[] = [];
const api: ApiServer = {
  url: "https://127.0.0.1:1",
  request: async (_method, path, options) => {
    const { spec } = (options?.body ?? {}) as { spec: Record<string, unknown> };
    reviews.push({ path, spec });
    await Promise.resolve();
    if (path.endsWith("tokenreviews")) {
      const name = String(spec["token"]);
      const authenticated = name === "allowed" || name === "looker";
      return { status: { authenticated, user: { username: name, groups: ["g"] } } };
    }
    const wanted = spec["resourceAttributes"] as Record<string, string>;
    const all = spec["user"] === "allowed" || spec["user"] === "api-server";
    const looks = spec["user"] === "looker" && wanted["verb"] === "get";
    return { status: { allowed: all || looks } };
  },
  watch: () => {
    throw new Error("not watched");
  },
};

const logged: PodLogOptions[] = [];
const sinks = new Set<Attached>();
const mainInput: Buffer[] = [];
let mainInputEnded = false;
const sizes: string[] = [];
const main = new Writable({
  write: (bytes: Buffer, _encoding, done) => {
    mainInput.push(bytes);
    done();
  },
  final: (done) => {
    mainInputEnded = true;
    done();
  },
});
const pod: RunningPod = {
  uid: "uid-1",
  namespace: "default",
  name: "web",
  container: "main",
  pod: {
    metadata: { name: "web", namespace: "default" },
    spec: { containers: [{ name: "main", stdinOnce: true }] },
  },
  get vm() {
    return guest.id;
  },
  running: true,
  startedAt: "2026-01-01T00:00:00Z",
  tty: false,
  exec: { env: ["OF=pod"] },
  guest: async () => await made.vmsan.get(guest.id),
  logs: async function* logs(options) {
    logged.push(options);
    if (options.previous === true) {
      throw new VmsanError({ code: "ERR_NODE_LOG", message: "No run before this one" });
    }
    yield Buffer.from("first\n");
    if (options.follow !== true) return;
    await new Promise<void>((resolve) =>
      options.signal?.addEventListener("abort", () => resolve()),
    );
    throw new Error("left");
  },
  attach: (sink) => {
    sinks.add(sink);
    return () => sinks.delete(sink);
  },
  stdin: main,
  resize: (rows, cols) => sizes.push(`${rows}x${cols}`),
};
const still = { ...pod, name: "still", running: false };
const pods: RunningPods = {
  adopted: Promise.resolve(),
  find: (namespace, name, container = "") =>
    [pod, still].find(
      (one) =>
        one.namespace === namespace &&
        one.name === name &&
        (container === "" || container === one.container),
    ),
  list: () => [pod],
};

let authority: Authority;
let apiServer: Issued;
let stranger: Issued;
let server: KubeletServer;

async function serve(clientCa: string, served = pods): Promise<KubeletServer> {
  return await serveKubelet({
    node: NODE,
    pods: served,
    vmsan: made.vmsan,
    api,
    address: { host: "127.0.0.1", port: 0 },
    certificate: authority.issue("node", `/CN=${NODE}`, ["IP:127.0.0.1"]),
    clientCa,
    log: { info: () => undefined, error: () => undefined },
  });
}

beforeAll(async () => {
  authority = new Authority(join(place.path, "ca"));
  apiServer = authority.issue("api", "/O=system:masters/CN=api-server");
  // Signed by an authority of its own.
  stranger = new Authority(join(place.path, "other")).issue(
    "api",
    "/O=system:masters/CN=api-server",
  );
  server = await serve(authority.cert);
});
afterAll(async () => await server.close());

function call(path: string, extra: RequestOptions = {}): RequestOptions {
  const { cert, key } = apiServer;
  return { host: "127.0.0.1", port: server.port, path, ca: authority.cert, cert, key, ...extra };
}
const bearer = (token: string): RequestOptions => ({
  cert: undefined,
  key: undefined,
  headers: { authorization: `Bearer ${token}` },
});

async function get(
  path: string,
  extra: RequestOptions = {},
): Promise<{ status: number; text: string }> {
  return await new Promise((resolve, reject) => {
    const asked = request({ ...call(path), agent: false, ...extra }, (reply) => {
      const parts: Buffer[] = [];
      reply.on("data", (part: Buffer) => parts.push(part));
      reply.on("end", () =>
        resolve({ status: reply.statusCode ?? 0, text: Buffer.concat(parts).toString() }),
      );
    });
    asked.on("error", reject);
    asked.end();
  });
}

const execPath = (argv: string[], flags = "output=1&error=1"): string =>
  `/exec/default/web/main?${argv.map((word) => `command=${encodeURIComponent(word)}`).join("&")}&${flags}`;

/** A session by WebSocket: messages by channel, and the end. */
class Session {
  readonly socket: WebSocket;
  readonly channels = new Map<number, Buffer[]>();
  readonly opened: Promise<void>;
  readonly closed: Promise<number>;

  constructor(path: string, protocol = "v5.channel.k8s.io") {
    const { cert, key } = apiServer;
    this.socket = new WebSocket(`wss://127.0.0.1:${server.port}${path}`, [protocol], {
      ca: authority.cert,
      cert,
      key,
    });
    this.opened = new Promise((resolve, reject) => {
      this.socket.once("open", () => resolve());
      this.socket.once("error", reject);
    });
    this.opened.catch(() => undefined);
    this.closed = new Promise((resolve) => this.socket.once("close", (code) => resolve(code)));
    this.socket.on("message", (data) => {
      const bytes = data as Buffer;
      const list = this.channels.get(bytes[0] ?? 0) ?? [];
      list.push(bytes.subarray(1));
      this.channels.set(bytes[0] ?? 0, list);
    });
  }

  bytes(channel: number): Buffer {
    return Buffer.concat(this.channels.get(channel) ?? []);
  }

  send(channel: number, bytes: Buffer | string): void {
    this.socket.send(Buffer.concat([Buffer.of(channel), Buffer.from(bytes)]));
  }

  get status(): Record<string, unknown> {
    return JSON.parse(this.bytes(3).toString()) as Record<string, unknown>;
  }
}

/** How many commands run in the guest. */
async function runningCommands(): Promise<number> {
  const streams = await listStreams((await made.vmsan.get(guest.id)).transport);
  return streams.filter(({ running }) => running).length;
}

describe("callers", () => {
  test("nobody without a certificate of the cluster or a token that the API server knows", async () => {
    const none = { cert: undefined, key: undefined };
    expect((await get("/healthz", none)).status).toBe(401);
    expect((await get("/healthz", bearer("guess"))).status).toBe(401);
    const { cert, key } = stranger;
    expect((await get("/healthz", { cert, key })).status).toBe(401);
    expect((await get("/nowhere", none)).status).toBe(401);
    // What is no address is answered so, too, and written nowhere.
    expect((await get("//[", none)).status).toBe(401);
    expect((await get("//[")).status).toBe(404);
    expect(
      await askSpdy({ ...call(execPath(["true"])), ...none }, "v4.channel.k8s.io"),
    ).toMatchObject({
      status: 401,
    });
    expect(await get("/healthz")).toEqual({ status: 200, text: "ok" });
    expect((await get("/healthz", bearer("allowed"))).status).toBe(200);
    expect((await get("/nowhere")).status).toBe(404);
  });

  test("a certificate of the cluster is not enough: its holder's rights are asked for", async () => {
    const { cert, key } = authority.issue("other", "/O=people/O=guests/CN=somebody");
    reviews.length = 0;
    expect((await get("/pods", { cert, key })).status).toBe(403);
    expect(reviews[0]?.spec).toMatchObject({
      user: "somebody",
      groups: ["people", "guests", "system:authenticated"],
      resourceAttributes: { resource: "nodes", subresource: "pods", name: NODE, verb: "get" },
    });
  });

  test("without an authority certificates are worth nothing", async () => {
    const bare = await serve("");
    try {
      const { port } = bare;
      expect((await get("/healthz", { port })).status).toBe(401);
      expect((await get("/healthz", { port, ...bearer("allowed") })).status).toBe(200);
    } finally {
      await bare.close();
    }
  });

  test("who may look may not act, whatever the method of a WebSocket is", async () => {
    expect((await get("/containerLogs/default/web/main", bearer("looker"))).text).toBe("first\n");
    const { headers } = bearer("looker");
    const socket = new WebSocket(
      `wss://127.0.0.1:${server.port}${execPath(["true"])}`,
      ["v5.channel.k8s.io"],
      {
        ca: authority.cert,
        headers: headers as Record<string, string>,
      },
    );
    const refused = await new Promise<Error>((resolve) => socket.once("error", resolve));
    expect(refused.message).toContain("403");
  });
});

describe("requests", () => {
  test("what is no request, no pod, no running container", async () => {
    const web = "/containerLogs/default/web/main";
    for (const [path, status] of [
      ["/exec/default/web/main?command=true&output=1", 400],
      ["/containerLogs/default/none/main", 404],
      ["/containerLogs/default/web/other", 404],
      ["/containerLogs/default/web", 404],
      ["/containerLogs/default/web/%zz", 404],
      [`${web}?tailLines=x`, 400],
      [`${web}?sinceTime=x`, 400],
      [`${web}?stream=Stdout`, 400],
      [`${web}?previous=true`, 400],
    ] as const) {
      expect([path, (await get(path)).status]).toEqual([path, status]);
    }
    for (const [path, status] of [
      ["/exec/default/web/main?output=1", 400],
      [execPath(["true"], ""), 400],
      ["/exec/default/still/main?command=true&output=1", 400],
      ["/exec/default/web/wrong-uid/main?command=true&output=1", 404],
      ["/pods", 404],
    ] as const) {
      expect([path, await askSpdy(call(path), "v4.channel.k8s.io")]).toMatchObject([
        path,
        { status },
      ]);
    }
    expect(await askSpdy(call(execPath(["true"])), "v1.channel.k8s.io")).toMatchObject({
      status: 400,
    });
    expect((await get("/pods", { method: "DELETE" })).status).toBe(404);
  });

  test("a node that has just been started knows its pods before it says that there are none", async () => {
    let adopt = (): void => undefined;
    let known = false;
    const adopted = new Promise<void>((resolve) => (adopt = resolve));
    const find: RunningPods["find"] = (...of) => (known ? pods.find(...of) : undefined);
    const fresh = await serve(authority.cert, { ...pods, adopted, find });
    try {
      const { port } = fresh;
      const logs = get("/containerLogs/default/web/main", { port });
      expect((await get("/healthz", { port })).status).toBe(200);
      known = true;
      adopt();
      expect(await logs).toEqual({ status: 200, text: "first\n" });
    } finally {
      await fresh.close();
    }
  });

  test("logs: the options arrive, a client that stops following ends the reading", async () => {
    const query =
      "follow=true&tailLines=3&limitBytes=10&timestamps=true&sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z";
    logged.length = 0;
    const asked = request({ ...call(`/containerLogs/default/web/main?${query}`), agent: false });
    const first = new Promise<string>((resolve) =>
      asked.on("response", (reply) =>
        reply.once("data", (bytes: Buffer) => resolve(bytes.toString())),
      ),
    );
    asked.on("error", () => undefined);
    asked.end();
    expect(await first).toBe("first\n");
    const [options] = logged;
    expect(options).toMatchObject({
      follow: true,
      tailLines: 3,
      limitBytes: 10,
      timestamps: true,
      sinceSeconds: 5,
      sinceTime: new Date("2026-01-01T00:00:00Z"),
    });
    asked.destroy();
    await expect.poll(() => options?.signal?.aborted).toBe(true);
  });

  test("figures: JSON for collectors, Prometheus's text for metrics-server", async () => {
    type Summary = {
      node: { nodeName: string };
      pods: {
        podRef: object;
        cpu: { usageCoreNanoSeconds: number };
        memory: { workingSetBytes: number };
      }[];
    };
    const found = JSON.parse((await get("/stats/summary")).text) as Summary;
    expect(found.node.nodeName).toBe(NODE);
    expect(found.pods.map(({ podRef }) => podRef)).toEqual([
      { name: "web", namespace: "default", uid: "uid-1" },
    ]);
    expect(found.pods[0]?.cpu.usageCoreNanoSeconds).toBeGreaterThanOrEqual(0);
    expect(found.pods[0]?.memory.workingSetBytes).toBeGreaterThan(0);
    const { text } = await get("/metrics/resource");
    expect(text).toMatch(
      /^container_memory_working_set_bytes\{container="main",namespace="default",pod="web"\} \d+ \d{13}$/m,
    );
    expect(text).toMatch(
      /^pod_cpu_usage_seconds_total\{namespace="default",pod="web"\} [\d.]+ \d{13}$/m,
    );
    expect(text).toMatch(/^resource_scrape_error 0$/m);
    const list = JSON.parse((await get("/pods")).text) as { items: unknown[] };
    expect(list.items).toEqual([pod.pod]);
  });
});

describe("commands by WebSocket", () => {
  test("outputs apart, the pod's environment, the status", async () => {
    const session = new Session(execPath(["sh", "-c", "echo out $OF; echo err >&2; exit 7"]));
    expect(await session.closed).toBe(1000);
    expect([session.bytes(1).toString(), session.bytes(2).toString()]).toEqual([
      "out pod\n",
      "err\n",
    ]);
    expect(session.status).toMatchObject({
      status: "Failure",
      reason: "NonZeroExitCode",
      details: { causes: [{ reason: "ExitCode", message: "7" }] },
    });
    // The first version has words instead of a status, and none when all is well.
    const said = async (argv: string[]): Promise<string[]> => {
      const first = new Session(execPath(argv), "channel.k8s.io");
      await first.closed;
      return [first.bytes(1).toString(), first.bytes(3).toString()];
    };
    expect(await said(["echo", "hi"])).toEqual(["hi\n", ""]);
    expect(await said(["false"])).toEqual(["", "command terminated with non-zero exit code: 1"]);
    const good = new Session(execPath(["true"]), "v4.channel.k8s.io");
    expect(await good.closed).toBe(1000);
    expect(good.status).toEqual({ metadata: {}, status: "Success" });
  });

  test("a command that is not there ends as in a shell", async () => {
    const session = new Session(execPath(["no-such-program"]));
    await session.closed;
    expect(session.bytes(2).toString()).toContain("no-such-program");
    expect(session.status["details"]).toEqual({ causes: [{ reason: "ExitCode", message: "127" }] });
  });

  test("3 MB go in and come back, and only the end of input ends it", async () => {
    const data = randomBytes(3 << 20);
    const session = new Session(execPath(["cat"], "input=1&output=1&error=1"));
    await session.opened;
    for (let at = 0; at < data.length; at += 30_000)
      session.send(0, data.subarray(at, at + 30_000));
    session.socket.send(Buffer.of(255, 0));
    // What comes behind the end is nobody's.
    session.send(0, "late");
    expect(await session.closed).toBe(1000);
    const digest = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");
    expect(digest(session.bytes(1))).toBe(digest(data));
  });

  test("input that nobody takes is held back at its client", async () => {
    const session = new Session(execPath(["sleep", "600"], "input=1&output=1"));
    await session.opened;
    const piece = Buffer.alloc(1 << 20);
    for (let i = 0; i < 64; i += 1) session.send(0, piece);
    await expect.poll(runningCommands).toBe(1);
    await expect.poll(() => session.socket.bufferedAmount).toBeGreaterThan(16 << 20);
    // Its client goes: so does the command, though nobody reads what it has sent.
    session.socket.terminate();
    await vi.waitFor(async () => expect(await runningCommands()).toBe(0), { timeout: 60_000 });
  });

  test("a terminal: its size arrives, also what came before the command ran", async () => {
    const script = "stty size; read x; stty size";
    const session = new Session(execPath(["sh", "-c", script], "input=1&output=1&tty=1"));
    await session.opened;
    session.send(4, JSON.stringify({ Width: 111, Height: 33 }));
    await expect.poll(() => session.bytes(1).toString()).toMatch(/\d+ \d+\r\n/);
    for (const bad of ["{", "null", '{"Width":-1,"Height":1}', "x".repeat(5000)])
      session.send(4, bad);
    session.send(4, JSON.stringify({ Width: 120, Height: 40 }));
    session.send(0, "\n");
    expect(await session.closed).toBe(1000);
    expect(session.bytes(1).toString()).toContain("40 120\r\n");
  });

  test("what is no message of the protocol changes nothing", async () => {
    const session = new Session(execPath(["cat"], "input=1&output=1"));
    await session.opened;
    session.socket.send(Buffer.alloc(0));
    session.socket.send("text");
    session.send(9, "unknown");
    session.send(1, "mine");
    session.socket.send(Buffer.of(255, 1));
    session.send(0, "ok");
    session.socket.send(Buffer.of(255, 0));
    expect(await session.closed).toBe(1000);
    expect(session.bytes(1).toString()).toBe("ok");
    const big = new Session(execPath(["cat"], "input=1&output=1"));
    await big.opened;
    big.send(0, Buffer.alloc(9 << 20));
    expect(await big.closed).toBe(1009);
    await expect.poll(runningCommands).toBe(0);
  });
});

describe("attached", () => {
  test("output from now on, input, sizes, and the end", async () => {
    const session = new Session("/attach/default/web/main?input=1&output=1&error=1");
    await session.opened;
    await expect.poll(() => sinks.size).toBe(1);
    const [sink] = sinks;
    await sink?.output(1, Buffer.from("out"));
    await sink?.output(2, Buffer.from("err"));
    session.send(4, JSON.stringify({ Width: 80, Height: 24 }));
    session.send(0, "in");
    await expect.poll(() => Buffer.concat(mainInput).toString()).toBe("in");
    expect(sizes).toEqual(["24x80"]);
    expect(mainInputEnded).toBe(false);
    session.socket.send(Buffer.of(255, 0));
    await expect.poll(() => mainInputEnded).toBe(true);
    sink?.end();
    expect(await session.closed).toBe(1000);
    expect([session.bytes(1).toString(), session.bytes(2).toString()]).toEqual(["out", "err"]);
    expect(session.status["status"]).toBe("Success");
    expect(sinks.size).toBe(0);
    const left = new Session("/attach/default/web/main?output=1");
    await left.opened;
    await expect.poll(() => sinks.size).toBe(1);
    left.socket.terminate();
    await expect.poll(() => sinks.size).toBe(0);
  });
});

describe("SPDY/3.1", () => {
  test("its dictionary is the one of the specification", () => {
    expect(DICTIONARY.length).toBe(1423);
    expect(createHash("sha256").update(DICTIONARY).digest("hex")).toBe(
      "51d27341373f923f3cd88e1eb7162aeaa3723d7585ff2399201dc06498407f02",
    );
  });

  async function connectSpdy(path: string, protocols: string): Promise<SpdyClient> {
    const agreed = await askSpdy(call(path), protocols);
    if (!("duplex" in agreed)) throw new Error(`${agreed.status} ${agreed.text}`);
    expect(agreed.protocol).toBe(protocols.split(",")[0]);
    return new SpdyClient(agreed.duplex);
  }

  test("3 MB go in and come back, and the status", async () => {
    const flags = "input=1&output=1&error=1";
    const argv = ["sh", "-c", "cat; echo done >&2; exit 3"];
    const client = await connectSpdy(execPath(argv, flags), "v4.channel.k8s.io,v3.channel.k8s.io");
    const error = await client.stream({ streamtype: "error" });
    const stdin = await client.stream({ streamType: "stdin" });
    const stdout = await client.stream({ streamtype: "stdout" });
    const stderr = await client.stream({ streamtype: "stderr" });
    const data = randomBytes(3 << 20);
    client.ping(1);
    for (let at = 0; at < data.length; at += 300_000) {
      await client.send(stdin, data.subarray(at, at + 300_000));
    }
    await client.send(stdin, Buffer.alloc(0), true);
    expect(await Promise.all([stdout.ended, stderr.ended, error.ended])).toEqual([
      "ended",
      "ended",
      "ended",
    ]);
    expect(stdout.received.equals(data)).toBe(true);
    expect(stderr.received.toString()).toBe("done\n");
    expect(JSON.parse(error.received.toString())).toMatchObject({ reason: "NonZeroExitCode" });
    await client.closed;
    expect([...client.replies].sort((a, b) => a - b)).toEqual([1, 3, 5, 7]);
  });

  test("a client that goes takes its command along; streams of no use are refused", async () => {
    const client = await connectSpdy(execPath(["sleep", "600"], "output=1"), "v4.channel.k8s.io");
    expect(await (await client.stream({ streamtype: "nonsense" })).ended).toBe("reset");
    await client.stream({ streamtype: "error" });
    await client.stream({ streamtype: "stdout" });
    expect(await (await client.stream({ streamtype: "stdout" })).ended).toBe("reset");
    await expect.poll(runningCommands).toBe(1);
    client.destroy();
    await expect.poll(runningCommands).toBe(0);
  });

  test("what is no frame ends the connection", async () => {
    const header = Buffer.alloc(10);
    header.writeUInt32BE(1);
    for (const bytes of [
      Buffer.from("GET / HTTP/1.1\r\n\r\n80020001"),
      Buffer.from([0x80, 0x02, 0, 1, 0, 0, 0, 0]),
      Buffer.from([0x80, 0x03, 0, 1, 0, 0xff, 0xff, 0xff]),
      encodeControl(1, Buffer.from("short")),
      encodeControl(1, Buffer.concat([header, randomBytes(100)])),
    ]) {
      const client = await connectSpdy(execPath(["true"]), "v4.channel.k8s.io");
      client.raw(bytes);
      client.raw(encodeNumbers(6, 1));
      // The first is the beginning of a data frame of a stream that is not there: that is waited for.
      if (bytes[0] === 0x47) client.destroy();
      await client.closed;
    }
    expect((await get("/healthz")).status).toBe(200);
  });

  test("headers that unpack to too much end the connection", async () => {
    const client = await connectSpdy(execPath(["true"]), "v4.channel.k8s.io");
    await client.stream({ streamtype: "x".repeat(1 << 20) });
    await client.closed;
  });
});

describe("ports", () => {
  let echo: Server;
  let port: number;
  beforeAll(async () => {
    // The fake driver's guest is this host.
    echo = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket));
    await new Promise<void>((resolve) => echo.listen(0, "127.0.0.1", resolve));
    port = (echo.address() as AddressInfo).port;
  });
  afterAll(() => echo.close());

  async function use(
    client: SpdyClient,
    to: number,
    id: string,
  ): Promise<{ back: Buffer; said: string }> {
    const headers = { port: String(to), requestid: id };
    const error = await client.stream({ ...headers, streamtype: "error" });
    const data = await client.stream({ ...headers, streamtype: "data" });
    await client.send(error, Buffer.alloc(0), true);
    await client.send(data, randomBytes(200_000));
    await client.send(data, Buffer.from("end"), true);
    await Promise.all([data.ended, error.ended]);
    return { back: data.received, said: error.received.toString() };
  }

  async function check(client: SpdyClient): Promise<void> {
    const [first, second, none] = await Promise.all([
      use(client, port, "0"),
      use(client, port, "1"),
      use(client, 1, "2"),
    ]);
    expect([first.back.length, second.back.length]).toEqual([200_003, 200_003]);
    expect([first.said, second.said, none.back.length]).toEqual(["", "", 0]);
    expect(none.said).toMatch(/refused/);
    const bad = await client.stream({ port: "99999", requestid: "9", streamtype: "data" });
    expect(await bad.ended).toBe("reset");
    client.destroy();
  }

  test("several connections by SPDY/3.1", async () => {
    const agreed = await askSpdy(call("/portForward/default/web"), "portforward.k8s.io");
    if (!("duplex" in agreed)) throw new Error(agreed.text);
    await check(new SpdyClient(agreed.duplex));
  });

  test("the same in a WebSocket", async () => {
    const { cert, key } = apiServer;
    const protocol = "SPDY/3.1+portforward.k8s.io";
    let agreed: string | undefined;
    const socket = new WebSocket(`wss://127.0.0.1:${server.port}/portForward/default/web`, {
      ca: authority.cert,
      cert,
      key,
      // The name is none that this library would offer or take.
      finishRequest: (asked) => {
        asked.setHeader("sec-websocket-protocol", protocol);
        asked.prependListener("upgrade", ({ headers }) => {
          agreed = headers["sec-websocket-protocol"];
          delete headers["sec-websocket-protocol"];
        });
        asked.end();
      },
    });
    const duplex = createWebSocketStream(socket);
    await new Promise<void>((resolve) => socket.once("open", () => resolve()));
    expect(agreed).toBe(protocol);
    await check(new SpdyClient(duplex));
  });
});
