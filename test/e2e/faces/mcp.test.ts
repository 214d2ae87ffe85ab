/**
 * The MCP server with a guest that really runs: what the fake driver cannot (memory, network), by the
 * SDK's own client; and what events and figures say of that guest.
 */
import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { VmSample, VmsanEvent } from "../../../src/index.ts";
import { installation } from "../../fixtures/ladder.ts";
import { vmsanBin, vmsanJson, vmsanOk } from "../support.ts";

const LIMIT_MS = 900_000;
const SERVER = `perl -MIO::Socket::INET -e '
  my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "0.0.0.0", LocalPort => 7000) or die;
  while (1) { my $c = $s->accept or next; sysread $c, my $b, 4096;
    print $c "HTTP/1.1 200 OK\\r\\ncontent-length: 4\\r\\nconnection: close\\r\\n\\r\\nhere"; close $c }' >/dev/null 2>&1 &`;

const here = installation("base");
const client = new Client({ name: "test", version: "1" });

beforeAll(async () => {
  const { PATH = "", HOME = "/" } = process.env;
  const env = { PATH, HOME, VMSAN_DIR: here.dir, VMSAN_WARM: "off" };
  await client.connect(
    new StdioClientTransport({ command: vmsanBin, args: ["mcp"], env, stderr: "inherit" }),
  );
});

// Its sandboxes go with it.
afterAll(async () => await client.close());

/** What a tool answers, which must not be a failure. */
async function call(name: string, args: Record<string, unknown> = {}): Promise<string> {
  const options = { timeout: LIMIT_MS };
  const { content, isError } = await client.callTool({ name, arguments: args }, options);
  const text = (content as { text?: string }[]).map((part) => part.text ?? "").join("");
  expect(isError ?? false, text).toBe(false);
  return text;
}

const idOf = (text: string): string => (JSON.parse(text) as { sandbox: string }).sandbox;

test(
  "an agent's work: files, a server, a snapshot, a way back, a fork, a refused name",
  async () => {
    const limits = { memory_mib: 256, network: "custom", domains: ["allowed.example"] };
    const sandbox = idOf(await call("create_sandbox", { image: "base", ...limits }));
    const run = async (command: string, where = sandbox): Promise<string> =>
      (await call("run_command", { sandbox: where, command, timeout_seconds: 600 })).trim();

    expect(await run("uname -s; cat /proc/1/comm")).toMatch(/^Linux\n/);
    const code = { sandbox, language: "perl", code: "print 6 * 7", timeout_seconds: 600 };
    expect(await call("run_code", code)).toBe("42");
    await call("write_file", { sandbox, path: "/tmp/state", content: "before\n" });
    await run(SERVER);
    const { url } = JSON.parse(await call("expose_port", { sandbox, port: 7000 })) as {
      url: string;
    };
    await vi.waitFor(async () => expect(await (await fetch(url)).text()).toBe("here"), {
      timeout: LIMIT_MS / 4,
      interval: 200,
    });

    const { snapshot } = JSON.parse(await call("snapshot_sandbox", { sandbox })) as {
      snapshot: string;
    };
    const edit = { sandbox, path: "/tmp/state", old_text: "before", new_text: "after" };
    await call("edit_file", edit);
    expect(await run("cat /tmp/state")).toBe("after");
    const { sandboxes } = JSON.parse(await call("fork_sandbox", { sandbox })) as {
      sandboxes: { sandbox: string }[];
    };
    const fork = sandboxes[0]?.sandbox ?? "";
    expect(await run("cat /tmp/state", fork)).toBe("after");
    await call("destroy_sandbox", { sandbox: fork });
    await call("rollback_sandbox", { sandbox, snapshot });
    expect(await run("cat /tmp/state")).toBe("before");

    await run("getent hosts refused.example || true");
    expect(await call("network_decisions", { sandbox, denied_only: true })).toContain(
      "refused.example",
    );

    // What the command line says of the same guest.
    const { vms } = await vmsanJson<{ vms: VmSample[] }>(["stats", "--no-stream", sandbox], here);
    const [sample] = vms;
    expect(sample?.host?.residentBytes).toBeGreaterThan(8 << 20);
    expect(sample?.host?.cpuMs).toBeGreaterThan(0);
    expect(sample?.guest?.memTotalBytes).toBeGreaterThan(128 << 20);
    expect(sample?.guest?.memTotalBytes).toBeLessThan(256 << 20);
    expect(sample?.guest?.readBytes).toBeGreaterThan(1 << 20);
    expect(sample?.guest?.diskTotalBytes).toBeGreaterThan(1 << 30);
    const printed = await vmsanOk(["events", "--since", "0", "--no-stream", "--json"], here);
    const events = printed
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as VmsanEvent);
    const types = new Set(events.filter(({ vm }) => vm?.id === sandbox).map(({ type }) => type));
    for (const type of ["vm.started", "vm.forked", "vm.restored", "snapshot.created"]) {
      expect([...types]).toContain(type);
    }
    expect(events.find(({ type }) => type === "network.denied")?.data).toMatchObject({
      name: "refused.example",
    });

    await client.close();
    await vi.waitFor(async () => expect(await here.vmsan.list()).toEqual([]), {
      timeout: LIMIT_MS / 4,
      interval: 200,
    });
    expect(await here.vmsan.snapshots.list()).toEqual([]);
  },
  LIMIT_MS,
);
