/** A gateway as programs on other machines use it: keys, the native API, ports of VMs. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { request as httpRequest } from "node:http";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Keys } from "../../../src/gateway/access/keys.ts";
import { KEY_LABEL } from "../../../src/gateway/access/limits.ts";
import { startGateway } from "../../../src/gateway/gateway.ts";
import type { ListeningGateway } from "../../../src/gateway/http/server.ts";
import { routes } from "../../../src/gateway/native/routes.ts";
import { Vmsan } from "../../../src/client/vmsan.ts";
import type { Vm } from "../../../src/client/vm.ts";
import { layoutOf } from "../../../src/util/paths.ts";
import { rawExchange } from "../../fixtures/raw-exchange.ts";
import { installation } from "../../fixtures/ladder.ts";
import { errorCode, vmsan } from "../support.ts";

const here = installation("base");
let gateway: ListeningGateway;
let keys: Keys;
let scratch: string;
/** Texts of keys, by whose they are. */
const key: Record<"ours" | "other" | "admin" | "revoked" | "expired" | "small", string> = {
  ours: "",
  other: "",
  admin: "",
  revoked: "",
  expired: "",
  small: "",
};
let ours: Vmsan;
let vm: Vm;

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "vmsan-serve-"));
  gateway = await startGateway({ dir: here.dir, listen: "127.0.0.1:0", driver: "fake" });
  keys = new Keys(layoutOf(here.dir).gateway);
  const make = async (wish: Parameters<Keys["create"]>[0]): Promise<[string, string]> => {
    const { key: known, text } = await keys.create(wish);
    return [`vmsan_${text}`, known.id];
  };
  [key.ours] = await make({ project: "ours" });
  [key.other] = await make({ project: "other" });
  [key.admin] = await make({ project: "ours", admin: true });
  const [revoked, id] = await make({ project: "ours" });
  key.revoked = revoked;
  await keys.remove(id);
  [key.expired] = await make({ project: "ours", lifetimeMs: 1 });
  [key.small] = await make({ project: "small", limits: { vms: 1, requestsPerSecond: 3 } });
  ours = new Vmsan({ remote: { url: gateway.url, key: key.ours } });
  vm = await ours.create({ runtime: "base", user: "root", workdir: "/" });
});

afterAll(async () => {
  await vm?.remove();
  await gateway?.close();
  await rm(scratch, { recursive: true, force: true });
});

/** One request; the body is sent as JSON. */
async function ask(
  method: string,
  path: string,
  options: { key?: string; body?: unknown; headers?: Record<string, string> } = {},
): Promise<{ status: number; text: string; headers: Record<string, unknown> }> {
  return await new Promise((resolve, reject) => {
    const request = httpRequest(gateway.url + path, {
      method,
      agent: false,
      headers: {
        ...(options.key === undefined ? {} : { "x-api-key": options.key }),
        ...options.headers,
      },
    });
    request.on("error", reject);
    request.on("response", (reply) => {
      let text = "";
      reply.setEncoding("utf8").on("data", (part: string) => (text += part));
      reply.on("end", () =>
        resolve({ status: reply.statusCode ?? 0, text, headers: reply.headers }),
      );
    });
    request.end(options.body === undefined ? undefined : JSON.stringify(options.body));
  });
}

describe("keys", () => {
  const concrete = (path: string, id: string): string =>
    path.replace(":vm", id).replace(":name", "nowhere").replace("*", "v1/hello");

  test("every route refuses who has none, a wrong, a revoked or an expired one", async () => {
    const wrong = `${key.ours.slice(0, -1)}${key.ours.endsWith("0") ? "1" : "0"}`;
    for (const route of routes) {
      for (const text of [undefined, "", "x", wrong, key.revoked, key.expired]) {
        const { status, text: reply } = await ask(
          route.method,
          concrete(route.path, vm.id),
          text === undefined ? {} : { key: text },
        );
        expect([route.method, route.path, text, status]).toEqual([
          route.method,
          route.path,
          text,
          401,
        ]);
        expect(reply).toContain("ERR_GATEWAY_UNAUTHORIZED");
      }
    }
    expect((await ask("GET", "/v1/no-such-route")).status).toBe(401);
  });

  test("another project's key does not learn of the VM by any route, and an admin's sees it", async () => {
    const ofProjects = routes.filter(({ admin }) => admin !== true);
    for (const route of ofProjects.filter(({ path }) => path.includes(":vm"))) {
      const { status, text } = await ask(route.method, concrete(route.path, vm.id), {
        key: key.other,
      });
      // Streamed replies tell it in their last line; none of these gets that far.
      expect([route.method, route.path, status]).toEqual([route.method, route.path, 404]);
      // Where a network is named before the VM, there is none of that name.
      expect(text).toMatch(/"ERR_(VM|PRIVATE_NETWORK)_NOT_FOUND"/);
    }
    expect(JSON.parse((await ask("GET", "/v1/vms", { key: key.other })).text)).toEqual({ vms: [] });
    expect((await ask("GET", `/v1/vms/${vm.id}`, { key: key.admin })).status).toBe(200);
    for (const { method, path } of routes.filter(({ admin }) => admin === true)) {
      // Whether what it names is there or not.
      for (const id of [vm.id, "vm-00000000"]) {
        const { status, text } = await ask(method, concrete(path, id), { key: key.ours });
        expect([method, path, status]).toEqual([method, path, 403]);
        expect(text).toContain("ERR_GATEWAY_FORBIDDEN");
      }
      const { status } = await ask(method, concrete(path, vm.id), { key: key.admin });
      expect([401, 403], `${method} ${path}`).not.toContain(status);
    }
  });

  test("its streams are another project's neither", async () => {
    const other = new Vmsan({ remote: { url: gateway.url, key: key.other } });
    await expect(other.get(vm.id)).rejects.toMatchObject({ code: "ERR_VM_NOT_FOUND" });
    const stolen = await ours.get(vm.id);
    const stream = await other.daemon.upgrade(`/v1/vms/${stolen.id}/v1/streams`).then(
      () => "open",
      (error: unknown) => error,
    );
    expect(stream).toMatchObject({ code: "ERR_VM_NOT_FOUND" });
  });

  test("only a hash of it is kept, in a file that is its owner's", async () => {
    const { gateway: directory } = layoutOf(here.dir);
    const text = await readFile(join(directory, "keys.json"), "utf8");
    expect(text).not.toContain(key.ours.slice(-40));
    const audit = await readFile(join(directory, "audit.log"), "utf8");
    for (const secret of Object.values(key)) expect(audit).not.toContain(secret.slice(-40));
    expect(audit).toContain(`"status":401`);
  });

  test("its limits hold", async () => {
    const body = { runtime: "base" };
    const first = await ask("POST", "/v1/vms", { key: key.small, body: { ...body, name: "one" } });
    expect(first.text).toContain('"event":"result"');
    const second = await ask("POST", "/v1/vms", { key: key.small, body });
    expect([second.status, second.text]).toEqual([
      403,
      expect.stringContaining("ERR_GATEWAY_QUOTA"),
    ]);
    await ask("DELETE", "/v1/vms/one?force=true", { key: key.small });
    const statuses = await Promise.all(
      Array.from({ length: 60 }, async () => await ask("GET", "/v1/vms", { key: key.small })),
    );
    const limited = statuses.filter(({ status }) => status === 429);
    expect(limited.length).toBeGreaterThan(0);
    expect(Number(limited[0]?.headers["retry-after"])).toBeGreaterThan(0);
  });
});

describe("native API", () => {
  test("the SDK works through it as it does on the host", async () => {
    const { stdout, exitCode } = await vm.exec(["sh", "-c", "cat; exit 3"], { input: "words" });
    expect([stdout.toString(), exitCode]).toEqual(["words", 3]);
    const file = join(scratch, "file");
    await writeFile(file, Buffer.alloc(3 << 20, 7));
    await vm.upload([file], scratch + "/copy");
    await vm.download(`${scratch}/copy`, join(scratch, "back"));
    expect(Buffer.compare(await readFile(join(scratch, "back")), await readFile(file))).toBe(0);
    expect((await ours.list()).map(({ id }) => id)).toEqual([vm.id]);
    expect(vm.view.labels[KEY_LABEL]).toBeUndefined();
    expect([vm.view.pid, vm.view.rootfs.includes("/"), vm.view.kernel.includes("/")]).toEqual([
      undefined,
      false,
      false,
    ]);
  });

  test("the command line works through it", async () => {
    const env = { VMSAN_URL: gateway.url, VMSAN_KEY: key.ours };
    const { code, stdout } = await vmsan(["exec", vm.id, "sh", "-c", "cat; exit 5"], {
      env,
      input: "typed",
    });
    expect([code, stdout.toString()]).toEqual([5, "typed"]);
    const other = { VMSAN_URL: gateway.url, VMSAN_KEY: key.other };
    expect(await errorCode(["exec", vm.id, "true"], { env: other })).toBe("ERR_VM_NOT_FOUND");
  });

  test("plain requests run commands and move files", async () => {
    const path = `/v1/vms/${vm.id}`;
    const done = await ask("POST", `${path}/exec`, {
      key: key.ours,
      body: { argv: ["sh", "-c", "echo a; echo b >&2; exit 4"] },
    });
    expect(JSON.parse(done.text)).toEqual({
      exitCode: 4,
      timedOut: false,
      stdout: "a\n",
      stderr: "b\n",
    });
    const query = `?path=${encodeURIComponent(`${scratch}/put`)}`;
    expect(
      (await ask("PUT", `${path}/files${query}`, { key: key.ours, body: "text" })).status,
    ).toBe(204);
    expect((await ask("GET", `${path}/files${query}`, { key: key.ours })).text).toBe('"text"');
    expect((await ask("GET", `${path}/files?path=/none`, { key: key.ours })).status).toBe(400);
  });

  test("nothing of the host can be named", async () => {
    const refused = [
      { image: "rootfs:/etc" },
      { image: "oci:/tmp/x" },
      { image: "docker-archive:/etc/shadow" },
      { rootfs: "/dev/vda" },
      { kernel: "/vmlinuz" },
      { runtime: "base", registry: { caFile: "/etc/shadow" } },
      {
        runtime: "base",
        ports: [{ protocol: "tcp", hostAddress: "0.0.0.0", hostPort: 80, guestPort: 80 }],
      },
      { runtime: "base", policy: { allowHostPorts: [22] } },
      { runtime: "base", project: "other" },
      { runtime: "base", labels: { [KEY_LABEL]: "other" } },
      {
        runtime: "base",
        isolation: { seccomp: false, pidNamespace: true, cgroup: true, networkNamespace: true },
      },
    ];
    for (const body of refused) {
      const { status, text } = await ask("POST", "/v1/vms", { key: key.ours, body });
      expect([body, status, text]).toEqual([
        body,
        403,
        expect.stringContaining("ERR_GATEWAY_FORBIDDEN"),
      ]);
    }
    for (const body of [[], null, 1, "x", { vcpus: 1e9 }, { unknown: 1 }, { env: [1] }]) {
      const { status } = await ask("POST", "/v1/vms", { key: key.ours, body });
      expect([body, status]).toEqual([body, 400]);
    }
  });

  test("its document describes every route", async () => {
    const { status, text } = await ask("GET", "/openapi.json");
    expect(status).toBe(200);
    const { paths } = JSON.parse(text) as { paths: Record<string, Record<string, unknown>> };
    const described = Object.entries(paths).flatMap(([, methods]) => Object.keys(methods));
    expect(described).toHaveLength(routes.length);
  });
});

describe("ports", () => {
  const server =
    "require('http').createServer((q,r)=>{r.setHeader('x-seen',JSON.stringify(q.headers));q.pipe(r)})" +
    ".on('upgrade',(q,s)=>{s.write('HTTP/1.1 101 Switching Protocols\\r\\nconnection: upgrade\\r\\nupgrade: echo\\r\\n\\r\\n');s.pipe(s)})" +
    ".listen(0,'127.0.0.1',function(){console.log(this.address().port)})";
  let host: string;
  let stop: () => void;

  beforeAll(async () => {
    const stream = vm.spawn([process.execPath, "-e", server]);
    const [line] = (await stream.stdout.take(1).toArray()) as Buffer[];
    stop = () => stream.signal("SIGKILL", true);
    host = `${String(line).trim()}-${vm.id}.localhost`;
  });
  afterAll(() => stop());

  test("are private, reached by key or token, and see neither", async () => {
    expect((await ask("GET", "/", { headers: { host } })).status).toBe(401);
    expect((await ask("GET", "/", { headers: { host }, key: key.other })).status).toBe(401);
    const { status, text, headers } = await ask("POST", "/a?b", {
      headers: { host },
      key: key.ours,
      body: { a: 1 },
    });
    expect([status, text]).toEqual([200, '{"a":1}']);
    expect(String(headers["x-seen"])).not.toContain(key.ours);
    const bearer = { host, authorization: `Bearer ${key.ours}` };
    const twice = await ask("GET", "/", { headers: bearer, key: key.ours });
    expect([twice.status, String(twice.headers["x-seen"]).includes(key.ours)]).toEqual([
      200,
      false,
    ]);
    const own = { host, authorization: "Bearer the-guest's-own" };
    const kept = await ask("GET", "/", { headers: own, key: key.ours });
    expect(String(kept.headers["x-seen"])).toContain("the-guest's-own");
    const unknown = `${host.split("-", 1)[0]}-vm-00000000.localhost`;
    const missing = await ask("GET", "/", { headers: { host: unknown } });
    // What E2B's clients take for the end of a sandbox.
    expect([missing.status, JSON.parse(missing.text)]).toEqual([
      502,
      { sandboxId: "vm-00000000", message: "The sandbox was not found", code: 502 },
    ]);
    expect(
      (await ask("GET", "/", { headers: { host: `1-${vm.id}.localhost` }, key: key.ours })).status,
    ).toBe(502);
  });

  test("switch protocols", async () => {
    const { port } = gateway;
    const socket = connect(port, "127.0.0.1");
    socket.write(
      `GET / HTTP/1.1\r\nhost: ${host}\r\nx-api-key: ${key.ours}\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n`,
    );
    let seen = "";
    for await (const chunk of socket) {
      seen += String(chunk);
      if (seen.endsWith("\r\n\r\n")) socket.write("ping");
      if (seen.endsWith("ping")) break;
    }
    expect(seen).toContain("101 Switching Protocols");
  });

  test("carry gRPC by HTTP/2, with its trailers, for the same callers", async () => {
    const echo =
      "require('http2').createServer().on('stream',(s,h)=>{s.respond({':status':200,'x-seen':JSON.stringify(h)},{waitForTrailers:true});" +
      "s.on('wantTrailers',()=>s.sendTrailers({'grpc-status':'0'}));s.pipe(s)})" +
      ".listen(0,'127.0.0.1',function(){console.log(this.address().port)})";
    const stream = vm.spawn([process.execPath, "-e", echo]);
    const [line] = (await stream.stdout.take(1).toArray()) as Buffer[];
    const authority = `${String(line).trim()}-${vm.id}.localhost`;
    const client = connectHttp2(gateway.url);
    const call = async (headers: Record<string, string>): Promise<Record<string, unknown>> => {
      const request = client.request({
        ":method": "POST",
        ":path": "/package.Service/Method",
        ":authority": authority,
        "content-type": "application/grpc",
        ...headers,
      });
      const seen: Record<string, unknown> = {};
      request.on("response", (given) => Object.assign(seen, given));
      request.on("trailers", (given) => Object.assign(seen, given));
      request.end("message");
      let body = "";
      for await (const chunk of request.setEncoding("utf8")) body += String(chunk);
      return { ...seen, body };
    };
    try {
      expect(await call({ "x-api-key": key.other })).toMatchObject({ ":status": 401 });
      const seen = await call({ "x-api-key": key.ours });
      expect(seen).toMatchObject({ ":status": 200, "grpc-status": "0", body: "message" });
      expect(String(seen["x-seen"])).not.toContain(key.ours);
      expect(await call({ ":authority": "localhost" })).toMatchObject({ ":status": 421 });
    } finally {
      client.close();
      stream.signal("SIGKILL", true);
    }
  });
});

describe("hostile clients", () => {
  test("are answered with 400 or less, and the gateway goes on", async () => {
    const attacks: [string, RegExp][] = [
      ["GET / HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n", /^HTTP\/1\.1 421/],
      ["GET /v1/vms HTTP/1.1\r\n\r\n", /^HTTP\/1\.1 400/],
      [
        "POST /v1/vms HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /",
        /^HTTP\/1\.1 400/,
      ],
      [
        `GET / HTTP/1.1\r\nhost: localhost\r\nx: ${"a".repeat(70_000)}\r\n\r\n`,
        /^HTTP\/1\.1 (400|431)/,
      ],
      [
        "GET /v1/../../etc/passwd HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        /^HTTP\/1\.1 40[14]/,
      ],
      [
        "GET /v1/vms/%2e%2e%2f HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        /^HTTP\/1\.1 401/,
      ],
      ["\u0016\u0003\u0001", /^HTTP\/1\.1 400/],
    ];
    for (const [bytes, answer] of attacks)
      expect(await rawExchange(gateway.port, bytes)).toMatch(answer);
    expect((await ask("GET", "/healthz")).status).toBe(200);
  });
});

test("a public address without TLS is refused", async () => {
  const start = startGateway({ dir: scratch, listen: "0.0.0.0:0" });
  await expect(start).rejects.toMatchObject({ code: "ERR_VALIDATION_FLAGS" });
  const behind = await startGateway({ dir: scratch, listen: "0.0.0.0:0", behindProxy: true });
  await behind.close();
});
