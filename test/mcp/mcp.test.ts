/** The MCP server as its SDK's own client finds it: every tool, over stdin and stdout and over HTTP. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import type { Transport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { fakeDaemon } from "../../src/daemon/testing.ts";
import type { FakeDaemon } from "../../src/daemon/testing.ts";
import { Keys } from "../../src/gateway/access/keys.ts";
import type { NewKey } from "../../src/gateway/access/keys.ts";
import { startGateway } from "../../src/gateway/gateway.ts";
import type { ListeningGateway } from "../../src/gateway/http/server.ts";
import { CLIENTS, clientOf, configurationFor, writeConfiguration } from "../../src/mcp/install.ts";
import { allowedImage, allowedNetwork, loadPolicy } from "../../src/mcp/policy.ts";
import { commandPath } from "../../src/util/package.ts";
import { layoutOf } from "../../src/util/paths.ts";
import { run } from "../../src/util/run.ts";

const root = join(import.meta.dirname, "../..");
let daemon: FakeDaemon;
let gateway: ListeningGateway;
let keys: Keys;
const open: Client[] = [];
/** Seconds that nobody else of this host sleeps: the guests of these tests are its processes. */
const NAP = 10_000_000 + process.pid;

beforeAll(async () => {
  daemon = await fakeDaemon();
  keys = new Keys(layoutOf(daemon.dir).gateway);
  gateway = await startGateway({ dir: daemon.dir, listen: "127.0.0.1:0", driver: "fake" });
});

afterEach(async () => {
  await Promise.all(open.splice(0).map(async (client) => await client.close()));
});

afterAll(async () => {
  await gateway?.close();
  await daemon?.close();
});

type Mode = "legacy" | "auto";

async function connected(transport: Transport, mode: Mode): Promise<Client> {
  const client = new Client({ name: "test", version: "1" }, { versionNegotiation: { mode } });
  await client.connect(transport);
  open.push(client);
  return client;
}

/** A session of its own in a process of its own. */
async function stdio(mode: Mode, words: string[] = []): Promise<Client & { pid: number }> {
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: [join(root, "src/cli/main.ts"), "mcp", "--driver", "fake", ...words],
    env: { PATH: process.env["PATH"] ?? "", HOME: daemon.dir, VMSAN_DIR: daemon.dir },
    stderr: "pipe",
  });
  const client = await connected(transport, mode);
  return Object.assign(client, { pid: transport.pid ?? 0 });
}

/** A session through the gateway. */
async function http(mode: Mode, wish: NewKey = {}): Promise<Client> {
  const { text } = await keys.create(wish);
  return await httpWith(mode, text);
}

async function httpWith(mode: Mode, key: string): Promise<Client> {
  const transport = new StreamableHTTPClientTransport(new URL(`${gateway.url}/mcp`), {
    requestInit: { headers: { authorization: `Bearer ${key}` } },
  });
  return await connected(transport, mode);
}

interface Answer {
  text: string;
  isError: boolean;
}

async function call(
  client: Client,
  name: string,
  args: Record<string, unknown> = {},
  options: Parameters<Client["callTool"]>[1] = {},
): Promise<Answer> {
  const result = await client.callTool({ name, arguments: args }, { timeout: 200_000, ...options });
  const [content] = result.content as { type: string; text?: string }[];
  return { text: content?.text ?? "", isError: result.isError === true };
}

async function create(client: Client, more: Record<string, unknown> = {}): Promise<string> {
  const { text, isError } = await call(client, "create_sandbox", { network: "none", ...more });
  expect(isError, text).toBe(false);
  return (JSON.parse(text) as { sandbox: string }).sandbox;
}

const runs = (id: string): boolean => daemon.sandboxes.list().some((view) => view.id === id);

describe.each([
  ["stdio, 2025's protocol", async () => await stdio("legacy")],
  ["stdio, 2026's protocol", async () => await stdio("auto")],
  ["HTTP, 2025's protocol", async () => await http("legacy")],
  ["HTTP, 2026's protocol", async () => await http("auto")],
])("%s", (_name, start) => {
  test("every tool", async () => {
    const client = await start();
    const { tools } = await client.listTools();
    expect(tools.map(({ name }) => name).toSorted()).toEqual([
      "create_sandbox",
      "destroy_sandbox",
      "edit_file",
      "expose_port",
      "fork_sandbox",
      "list_files",
      "list_sandboxes",
      "network_decisions",
      "read_file",
      "read_output",
      "rollback_sandbox",
      "run_code",
      "run_command",
      "snapshot_sandbox",
      "write_file",
    ]);
    for (const { description, inputSchema } of tools) {
      expect(description?.length).toBeGreaterThan(20);
      expect(inputSchema.type).toBe("object");
    }
    const sandbox = await create(client);
    const dir = join(daemon.dir, "files", sandbox);
    const path = join(dir, "a.txt");

    const command = `mkdir -p ${dir}; echo "$A"; cat; echo no >&2; exit 3`;
    const ran = await call(client, "run_command", {
      sandbox,
      command,
      stdin: "from stdin\n",
      env: { A: "from env" },
    });
    expect(ran.isError).toBe(true);
    for (const part of [/^from env$/m, /^from stdin$/m, /^no$/m, /^\[exit code 3\]$/m]) {
      expect(ran.text).toMatch(part);
    }
    const code = { sandbox, language: "shell", code: "echo $((6 * 7))" };
    expect(await call(client, "run_code", code)).toEqual({ text: "42\n", isError: false });

    await call(client, "write_file", { sandbox, path, content: "one two\n", mode: "640" });
    expect((await call(client, "read_file", { sandbox, path })).text).toBe("one two\n");
    const part = { sandbox, path, offset: 4, limit: 3 };
    expect((await call(client, "read_file", part)).text).toMatch(/^two\n.*offset 7/);
    const edit = { sandbox, path, old_text: "two", new_text: "2" };
    expect((await call(client, "edit_file", edit)).isError).toBe(false);
    expect((await call(client, "edit_file", edit)).text).toContain("does not hold old_text");
    expect((await call(client, "read_file", { sandbox, path })).text).toBe("one 2\n");
    expect((await call(client, "list_files", { sandbox, path: dir })).text).toMatch(
      /^file +0640 +6 a\.txt$/,
    );
    expect((await call(client, "read_file", { sandbox, path: "/no/such" })).text).toContain(
      "ERR_AGENT_FILE",
    );

    daemon.decide(sandbox, { verdict: "denied", protocol: "dns", name: "x.example", rule: "r" });
    daemon.decide(sandbox, { verdict: "allowed", protocol: "dns", name: "y.example", rule: "r" });
    const denied = await call(client, "network_decisions", { sandbox, denied_only: true });
    expect(denied.text).toContain("x.example");
    expect(denied.text).not.toContain("y.example");

    // Its guest is a process of this host, as is the server.
    const server = createServer((_request, response) => response.end("here"));
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    try {
      const { port } = server.address() as AddressInfo;
      const exposed = JSON.parse((await call(client, "expose_port", { sandbox, port })).text) as {
        url: string;
        headers?: Record<string, string>;
      };
      const { url, headers = {} } = exposed;
      expect(await (await fetch(url, { headers })).text()).toBe("here");
      if (headers["vmsan-vm"] !== undefined) {
        const { "vmsan-traffic-token": _token, ...bare } = headers;
        expect((await fetch(url, { headers: bare })).status).toBe(401);
      }
    } finally {
      server.close();
      server.closeAllConnections();
    }
    // The fake driver keeps no memory: that it is asked, and that it is said.
    for (const [name, more] of [
      ["fork_sandbox", {}],
      ["snapshot_sandbox", {}],
      ["rollback_sandbox", { snapshot: "none" }],
    ] as const) {
      const answer = await call(client, name, { sandbox, ...more });
      expect(answer.isError).toBe(true);
      expect(answer.text).toMatch(/ERR_(DRIVER_UNSUPPORTED|VM_SNAPSHOT_NOT_FOUND)/);
    }

    const console_ = await client.readResource({ uri: `vmsan://${sandbox}/console` });
    expect(console_.contents).toHaveLength(1);
    const file = await client.readResource({ uri: `vmsan://${sandbox}/files${path}` });
    expect(file.contents[0]).toMatchObject({ text: "one 2\n" });
    const { resources } = await client.listResources();
    expect(resources.map(({ uri }) => uri)).toContain(`vmsan://${sandbox}/console`);

    expect((await call(client, "list_sandboxes")).text).toContain(sandbox);
    expect((await call(client, "destroy_sandbox", { sandbox })).isError).toBe(false);
    expect((await call(client, "list_sandboxes")).text).not.toContain(sandbox);
    expect(runs(sandbox)).toBe(false);
    expect((await call(client, "run_command", { sandbox, command: "true" })).text).toContain(
      "ERR_VM_NOT_FOUND",
    );
  });

  test("10 MB of output: its ends are shown, the rest can be read", async () => {
    const client = await start();
    const sandbox = await create(client);
    const command = "yes 0123456789abcde | head -c 10000000; echo; echo the end";
    const { text, isError } = await call(client, "run_command", { sandbox, command });
    expect(isError).toBe(false);
    expect(Buffer.byteLength(text)).toBeLessThan(31_000);
    expect(text).toMatch(/^0123456789abcde\n[^]*the end\n$/);
    const [, output = "", offset = ""] = /output (\d+), offset (\d+)/.exec(text) ?? [];
    const next = await call(client, "read_output", {
      output: Number(output),
      offset: Number(offset),
      limit: 16,
    });
    expect(next.text.replaceAll(/\n\[….*$/g, "")).toHaveLength(16);
    const last = await call(client, "read_output", {
      output: Number(output),
      offset: 9_999_990,
    });
    expect(last.text).toMatch(/the end\n$/);
    const { contents } = await client.readResource({ uri: `vmsan://outputs/${output}` });
    expect((contents[0] as { text: string }).text).toHaveLength(1 << 20);
  });

  test("a command that hangs is ended at its limit; one whose call is cancelled is killed", async () => {
    const client = await start();
    const sandbox = await create(client);
    const hanging = { sandbox, command: `echo begun; exec sleep ${NAP}`, timeout_seconds: 1 };
    const ended = await call(client, "run_command", hanging);
    expect(ended.isError).toBe(true);
    expect(ended.text).toMatch(/begun[^]*time limit of 1 s/);
    const cancel = new AbortController();
    const seen: string[] = [];
    const running = call(
      client,
      "run_command",
      { sandbox, command: `echo first; sleep 1; echo second; exec sleep ${NAP}` },
      {
        signal: cancel.signal,
        onprogress: ({ message = "" }) => {
          seen.push(message);
          if (seen.join("").includes("second")) cancel.abort();
        },
      },
    );
    await expect(running).rejects.toThrow();
    expect(seen.join("")).toContain("first\n");
    const left = { sandbox, command: `pgrep -f '[s]leep ${NAP}' || echo none` };
    await vi.waitFor(
      async () => expect((await call(client, "run_command", left)).text).toMatch(/none/),
      { timeout: 120_000 },
    );
  });
});

test("code in languages of interpreters and of compilers, as far as this host has them", async () => {
  const client = await stdio("legacy");
  const { PATH = "", HOME = "" } = process.env;
  const temporary = await mkdtemp(join(daemon.dir, "tmp-"));
  const sandbox = await create(client, { env: { PATH, HOME, TMPDIR: temporary } });
  const code = async (language: string, text: string, more: object = {}): Promise<Answer> =>
    await call(client, "run_code", {
      sandbox,
      language,
      code: text,
      timeout_seconds: 600,
      ...more,
    });
  const c = '#include <stdio.h>\nint main(int n, char **a) { printf("%s\\n", a[1]); return 3; }';
  const failed = { text: expect.stringMatching(/^a b\n+\[exit code 3\]$/), isError: true };
  expect(await code("c", c, { args: ["a b"] })).toEqual(failed);
  expect(await code("c", "int main() {")).toEqual({
    text: expect.stringMatching(/error:[^]*exit code 1/),
    isError: true,
  });
  const go = 'package main\nimport ("fmt"; "os")\nfunc main() { fmt.Println(os.Args[1]) }';
  expect(await code("go", go, { args: ["it's"] })).toEqual({ text: "it's\n", isError: false });
  const words = { args: ["$(id)"] };
  const said = { text: "$(id)\n", isError: false };
  expect(await code("shell", 'echo "$1"', words)).toEqual(said);
  expect(await code("perl", 'print "$ARGV[0]\\n"', words)).toEqual(said);
  expect(await code("python", "import sys; print(sys.argv[1])", words)).toEqual(said);
  expect(await code("javascript", "console.log(process.argv[2])", words)).toEqual(said);
  expect(
    await code("typescript", "const a: string = process.argv[2]!; console.log(a)", words),
  ).toEqual(said);
  // No directory of a program stays.
  expect(await readdir(temporary)).toEqual([]);

  const empty = await create(client, { env: { PATH: "/nowhere" } });
  for (const [language, program, image] of [
    ["rust", "rustc", "rust:"],
    ["c", "cc, gcc, clang", "gcc:"],
    ["julia", "julia", "julia:"],
    ["javascript", "node, bun, deno", "node:"],
  ]) {
    const answer = await call(client, "run_code", { sandbox: empty, language, code: "x" });
    expect(answer.isError).toBe(true);
    expect(answer.text).toContain(`This sandbox has no ${program} [ERR_AGENT_NOT_FOUND]`);
    expect(answer.text).toContain(`e.g. ${image}`);
  }
});

describe("sessions", () => {
  test("see their own sandboxes alone, and take them along when they end", async () => {
    const one = await stdio("legacy");
    const other = await http("legacy");
    const [mine, theirs] = await Promise.all([create(one), create(other)]);
    expect((await call(one, "list_sandboxes")).text).not.toContain(theirs);
    const foreign = await call(one, "run_command", { sandbox: theirs, command: "true" });
    expect(foreign.text).toContain("ERR_VM_NOT_FOUND");
    const file = one.readResource({ uri: `vmsan://${theirs}/console` });
    await expect(file).rejects.toThrow();
    await one.close();
    await vi.waitFor(() => expect(runs(mine)).toBe(false), { timeout: 120_000 });
    expect(runs(theirs)).toBe(true);
    await (other.transport as StreamableHTTPClientTransport).terminateSession();
    await vi.waitFor(() => expect(runs(theirs)).toBe(false), { timeout: 120_000 });
  });

  test("a server that is killed leaves no sandbox", async () => {
    const client = await stdio("legacy");
    const sandbox = await create(client);
    process.kill(client.pid, "SIGKILL");
    await vi.waitFor(() => expect(runs(sandbox)).toBe(false), { timeout: 120_000 });
  });

  test("a key's session is no other key's", async () => {
    const { text } = await keys.create({ project: "a" });
    const mine = await httpWith("legacy", text);
    const sandbox = await create(mine);
    const { sessionId } = mine.transport as StreamableHTTPClientTransport;
    const { text: foreign } = await keys.create({ project: "b" });
    const body = { jsonrpc: "2.0", id: 1, method: "tools/list" };
    const request = async (headers: Record<string, string>): Promise<number> => {
      const accept = "application/json, text/event-stream";
      const reply = await fetch(`${gateway.url}/mcp`, {
        method: "POST",
        headers: { "content-type": "application/json", accept, ...headers },
        body: JSON.stringify(body),
      });
      await reply.arrayBuffer();
      return reply.status;
    };
    const session = { "mcp-session-id": sessionId ?? "" };
    const bearer = (key: string): Record<string, string> => ({ authorization: `Bearer ${key}` });
    expect(await request({ ...session, ...bearer(text) })).toBe(200);
    expect(await request({ ...session, ...bearer(foreign) })).toBe(404);
    expect(await request(session)).toBe(401);
    const origin = { origin: "https://evil.example" };
    expect(await request({ ...session, ...bearer(text), ...origin })).toBe(403);
    // Nor does the newer protocol, which knows no sessions, show one key's to another.
    const modern = await http("auto", { project: "a" });
    expect((await call(modern, "list_sandboxes")).text).not.toContain(sandbox);
  });

  test("the key's own limits hold, and its project", async () => {
    const client = await http("legacy", { project: "small", limits: { vms: 1 } });
    const sandbox = await create(client);
    expect(daemon.sandboxes.get(sandbox).project).toBe("small");
    const second = await call(client, "create_sandbox", { network: "none" });
    expect(second.text).toContain("ERR_GATEWAY_QUOTA");
  });
});

describe("policy", () => {
  test("a server refuses what its policy does not allow", async () => {
    const path = join(daemon.dir, "policy.json");
    const policy = {
      images: ["base", "python:*"],
      maxSandboxes: 1,
      maxMemoryMib: 256,
      networkModes: ["none"],
      maxCommandSeconds: 5,
      exposePorts: false,
    };
    await writeFile(path, JSON.stringify(policy));
    const client = await stdio("legacy", ["--policy", path]);
    const refused = async (name: string, args: Record<string, unknown>): Promise<void> => {
      const answer = await call(client, name, args);
      expect(answer.text).toContain("ERR_MCP_REFUSED");
      expect(answer.isError).toBe(true);
    };
    await refused("create_sandbox", { image: "node:22", memory_mib: 128 });
    await refused("create_sandbox", { image: "rootfs:/etc", memory_mib: 128 });
    await refused("create_sandbox", { memory_mib: 512 });
    await refused("create_sandbox", { memory_mib: 128, network: "allow-all" });
    // What a model may take for a word of the tool, whose default it would get instead.
    const other = { memory_mib: 128, network_mode: "none" };
    expect(await call(client, "create_sandbox", other)).toMatchObject({
      isError: true,
      text: expect.stringContaining("network_mode"),
    });
    const sandbox = await create(client, { memory_mib: 128 });
    await refused("create_sandbox", { memory_mib: 128 });
    await refused("run_command", { sandbox, command: "true", timeout_seconds: 6 });
    await refused("expose_port", { sandbox, port: 80 });
    expect((await call(client, "run_command", { sandbox, command: "" })).isError).toBe(true);
  });

  test("images and domains by pattern", async () => {
    const policy = await loadPolicy(undefined);
    const strict = {
      ...policy,
      images: ["ghcr.io/me/*", "python:3.1?"],
      networkDomains: ["*.packages.example", "example.com"],
    };
    expect(allowedImage(policy, undefined)).toBe("base");
    expect(allowedImage(strict, "ghcr.io/me/app:1")).toBe("ghcr.io/me/app:1");
    const tags = { ...policy, images: ["python:*", "r.example:*/*", "*@sha256:*"] };
    for (const image of ["python:3.12", "r.example:5000/a/b:1", "ghcr.io/a/b@sha256:00"]) {
      expect(allowedImage(tags, image)).toBe(image);
    }
    for (const image of ["python:5000/a:1", "python:5000/3.12", "r.example/a", "a@sha256:0/b"]) {
      expect(() => allowedImage(tags, image), image).toThrow("Not allowed here");
    }
    for (const image of [
      undefined,
      "ghcr.io/you/app",
      "python:3.12",
      "docker-daemon:x",
      "xghcr.io/me/a",
    ]) {
      expect(() =>
        allowedImage(image === undefined ? { ...strict, images: ["a*"] } : strict, image),
      ).toThrow();
    }
    const domains = (...list: string[]): unknown => allowedNetwork(strict, { domains: list });
    expect(
      domains("files.packages.example", "*.files.packages.example", "EXAMPLE.com"),
    ).toMatchObject({
      networkPolicy: "custom",
    });
    for (const domain of [
      "packages.example",
      "*.org",
      "*",
      "evilpackages.example",
      "sub.example.com",
    ]) {
      expect(() => domains(domain)).toThrow();
    }
    expect(() =>
      allowedNetwork(strict, { mode: "allow-all", domains: ["a.packages.example"] }),
    ).toThrow();
    const fits = (pattern: string, image: string): boolean => {
      try {
        return allowedImage({ ...policy, images: [pattern] }, image) === image;
      } catch {
        // It is refused.
        return false;
      }
    };
    expect(fits("a*b*b", "axbxb")).toBe(true);
    expect(fits("a*ab", "ab")).toBe(false);
    expect(fits("*", "x")).toBe(true);
    expect(fits("ghcr.io/*/app:*", "ghcr.io/me/app:1")).toBe(true);
    expect(fits("ghcr.io/*/app:*", "ghcr.io/me/app")).toBe(false);
    // As a regular expression this would take longer than there is time.
    expect(fits(`${"a*".repeat(100)}b`, "a".repeat(1000))).toBe(false);
  });

  test.each([
    ["no file", undefined],
    ["no JSON", "{ images: [] }"],
    ["nothing", ""],
    ["null", "null"],
    ["a list", "[]"],
    ["no image", '{"images":[]}'],
    ["an image that is no text", '{"images":[{"toString":1}]}'],
    ["a word that is not known", '{"image":["base"]}'],
    ["a word of every object", '{"__proto__":{"keep":true},"constructor":1}'],
    ["a number as text", '{"maxSandboxes":"8"}'],
    ["less than nothing", '{"maxMemoryMib":-1}'],
    ["more than there is", '{"maxVcpus":1e9}'],
    ["half a sandbox", '{"maxSandboxes":0.5}'],
    ["no network mode", '{"networkModes":[]}'],
    ["a network mode that is not known", '{"networkModes":["all"]}'],
    ["every domain as a star", '{"networkDomains":["*"]}'],
    ["an address as a domain", '{"networkDomains":["https://example.com"]}'],
    ["a star within a name", '{"networkDomains":["api.*.com"]}'],
    ["text for a switch", '{"exposePorts":"false"}'],
  ])("a file with %s is refused in words", async (_, text) => {
    const path = join(daemon.dir, "hostile-policy.json");
    await rm(path, { force: true });
    if (text !== undefined) await writeFile(path, text);
    await expect(loadPolicy(path)).rejects.toMatchObject({
      code: "ERR_MCP_POLICY",
      message: expect.any(String),
    });
  });
});

describe("install", () => {
  const server = { command: "/opt/it's/vmsan", args: ["mcp"], env: { VMSAN_DIR: "/d" } };

  test.each(Object.keys(CLIENTS))("what %s is told names the command", (name) => {
    const text = configurationFor(clientOf(name), server);
    expect(text).toMatch(/vmsan/);
    expect(text).toContain("VMSAN_DIR");
    if (text.startsWith("{")) expect(JSON.stringify(JSON.parse(text))).toContain(server.command);
  });

  test("a gateway that the environment names is named, its key is not", async () => {
    const env = { ...process.env, VMSAN_URL: "http://10.0.0.7:7300", VMSAN_KEY: "vmsan_secret" };
    const { code, stdout, stderr } = await run(commandPath(), ["mcp", "install"], { env });
    expect([code, stdout.split("http://10.0.0.7:7300").length - 1]).toEqual([
      0,
      Object.keys(CLIENTS).length,
    ]);
    expect(stdout + stderr).not.toContain("vmsan_secret");
    expect(stderr).toContain("VMSAN_KEY");
  });

  test("what is written keeps what is there; what cannot be read is left alone", async () => {
    const home = await mkdtemp(join(tmpdir(), "vmsan-home-"));
    try {
      const cursor = clientOf("cursor");
      const path = await writeConfiguration(cursor, server, home);
      await writeFile(path, JSON.stringify({ other: 1, mcpServers: { b: { command: "b" } } }));
      await writeConfiguration(cursor, server, home);
      const settings: unknown = JSON.parse(await readFile(path, "utf8"));
      expect(settings).toMatchObject({
        other: 1,
        mcpServers: { b: { command: "b" }, vmsan: { command: server.command } },
      });
      await writeFile(path, "{ // comment\n}");
      const again = writeConfiguration(cursor, server, home);
      await expect(again).rejects.toMatchObject({ code: "ERR_MCP_INSTALL" });
      expect(await readFile(path, "utf8")).toContain("comment");
      const codex = writeConfiguration(clientOf("codex"), server, home);
      await expect(codex).rejects.toMatchObject({ code: "ERR_MCP_INSTALL" });
    } finally {
      await rm(home, { recursive: true, force: true });
    }
  });
});
