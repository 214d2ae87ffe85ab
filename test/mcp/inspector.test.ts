/**
 * The official MCP inspector's command line against the server, over both transports: it lists what there is, turns words of
 * a shell into arguments by the tools' own schemas, and reads what they answer.
 *
 * Each of its runs is a session of its own, whose sandboxes no other run has: what needs one is asked for one that is
 * not there, and says so in the tool's own words.
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { fakeDaemon } from "../../src/daemon/testing.ts";
import type { FakeDaemon } from "../../src/daemon/testing.ts";
import { Keys } from "../../src/gateway/access/keys.ts";
import { startGateway } from "../../src/gateway/gateway.ts";
import type { ListeningGateway } from "../../src/gateway/http/server.ts";
import { layoutOf } from "../../src/util/paths.ts";
import { npmPackages } from "../fixtures/kept.ts";

// A host with too much to do takes its time.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 240_000 });

const run = promisify(execFile);
const root = join(import.meta.dirname, "../..");

let inspector: string;
let daemon: FakeDaemon;
let gateway: ListeningGateway;
let key: string;

beforeAll(async () => {
  const packages = await npmPackages("mcp-inspector");
  inspector = join(
    packages,
    "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js",
  );
  daemon = await fakeDaemon();
  gateway = await startGateway({ dir: daemon.dir, listen: "127.0.0.1:0", driver: "fake" });
  ({ text: key } = await new Keys(layoutOf(daemon.dir).gateway).create({ project: "inspected" }));
});

afterAll(async () => {
  await gateway?.close();
  await daemon?.close();
});

/** What one run of it prints; a tool's failure is its own, too. */
async function inspect(target: readonly string[], words: readonly string[]): Promise<unknown> {
  const { PATH = "" } = process.env;
  const argv = [inspector, "--cli", ...target, ...words];
  const env = { PATH, HOME: daemon.dir };
  try {
    return JSON.parse((await run(process.execPath, argv, { env })).stdout) as unknown;
  } catch (error) {
    const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string };
    if (!stderr.includes('"tool_is_error"')) throw error;
    return JSON.parse(stdout) as unknown;
  }
}

const overHttp = async (...words: string[]): Promise<unknown> =>
  await inspect([`${gateway.url}/mcp`, "--header", `Authorization: Bearer ${key}`], words);

const overStdio = async (...words: string[]): Promise<unknown> =>
  await inspect(
    [process.execPath, join(root, "src/cli/main.ts"), "mcp", "--driver", "fake"],
    // To a server's process it hands on what is named here, and nothing else of its own environment.
    ["-e", `VMSAN_DIR=${daemon.dir}`, ...words],
  );

interface Tool {
  name: string;
}

/** Words for each tool that needs a sandbox, beside that one. */
const WORDS: Record<string, string[]> = {
  destroy_sandbox: [],
  edit_file: ["path=/a", "old_text=b", "new_text=c", "replace_all=true"],
  expose_port: ["port=8080"],
  fork_sandbox: ["count=2"],
  list_files: ["path=/"],
  network_decisions: ["denied_only=true"],
  read_file: ["path=/a", "offset=1", "limit=2"],
  rollback_sandbox: ["snapshot=none"],
  run_code: ["language=shell", "code=ls"],
  run_command: ['command=echo "$A"', 'env={"A":"1"}', "timeout_seconds=5"],
  snapshot_sandbox: ["name=one"],
  write_file: ["path=/a", "content=b"],
};

test("every tool is listed and called over HTTP", async () => {
  // It refuses schemas that not every client takes.
  const { tools } = (await overHttp("--method", "tools/list", "--strict")) as { tools: Tool[] };
  const names = tools.map(({ name }) => name).toSorted();
  const others = ["create_sandbox", "list_sandboxes", "read_output"];
  expect(names).toEqual([...Object.keys(WORDS), ...others].toSorted());
  const call = async (name: string, ...args: string[]): Promise<[boolean, string]> => {
    const words = args.flatMap((arg) => ["--tool-arg", arg]);
    const answer = (await overHttp("--method", "tools/call", "--tool-name", name, ...words)) as {
      content: { text: string }[];
      isError?: boolean;
    };
    return [answer.isError === true, answer.content.map(({ text }) => text).join("")];
  };
  expect(await call("list_sandboxes")).toEqual([false, expect.stringContaining("[]")]);
  const made = await call("create_sandbox", "network=none", "memory_mib=256");
  expect(made).toEqual([false, expect.stringContaining('"sandbox"')]);
  expect(await call("read_output", "output=1")).toEqual([true, expect.stringContaining("output")]);
  for (const [name, args] of Object.entries(WORDS)) {
    // A word that its schema has not would be refused before the sandbox is looked for.
    const answer = await call(name, "sandbox=vm-00000000", ...args);
    expect([name, ...answer]).toEqual([name, true, expect.stringContaining("NOT_FOUND")]);
  }
});

test("resources, templates and a tool are there over standard input and output", async () => {
  expect(await overStdio("--method", "resources/list")).toEqual({ resources: [] });
  const { resourceTemplates } = (await overStdio("--method", "resources/templates/list")) as {
    resourceTemplates: { uriTemplate: string }[];
  };
  expect(resourceTemplates.map(({ uriTemplate }) => uriTemplate)).toContain(
    "vmsan://{sandbox}/console",
  );
  const made = await overStdio("--method", "tools/call", "--tool-name", "create_sandbox");
  expect(JSON.stringify(made)).toContain("sandbox");
  // Its session has ended with the process, and the sandbox with that.
  await vi.waitFor(
    () =>
      expect(daemon.sandboxes.list().filter(({ project }) => project !== "inspected")).toEqual([]),
    { timeout: 60_000 },
  );
});
