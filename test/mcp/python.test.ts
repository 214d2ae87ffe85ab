/** The MCP server as the official Python SDK finds it, of the protocol of 2025 and of the newest. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fakeDaemon } from "../../src/daemon/testing.ts";
import type { FakeDaemon } from "../../src/daemon/testing.ts";
import { Keys } from "../../src/gateway/access/keys.ts";
import { startGateway } from "../../src/gateway/gateway.ts";
import type { ListeningGateway } from "../../src/gateway/http/server.ts";
import { layoutOf } from "../../src/util/paths.ts";
import { pythonWith } from "../fixtures/venv.ts";

const root = join(import.meta.dirname, "../..");
/** Seconds that nobody else of this host sleeps: the guests of these tests are its processes. */
const NAP = 20_000_000 + process.pid;
let daemon: FakeDaemon;
let gateway: ListeningGateway;

beforeAll(async () => {
  daemon = await fakeDaemon();
  gateway = await startGateway({ dir: daemon.dir, listen: "127.0.0.1:0", driver: "fake" });
});

afterAll(async () => {
  await gateway?.close();
  await daemon?.close();
});

interface Seen {
  tools: string[];
  [what: string]: unknown;
}

const versions = ["1.30.0", "2.3.0"] as const;

/** What the client in test/mcp/client.py saw. */
async function seenBy(
  version: (typeof versions)[number],
  words: readonly string[],
  nap: number,
): Promise<Seen> {
  const python = await pythonWith(`mcp-${version}`);
  const client = join(import.meta.dirname, "client.py");
  const { stdout } = await promisify(execFile)(python, [client, ...words, String(nap)], {
    timeout: 500_000,
    maxBuffer: 1 << 26,
  });
  return JSON.parse(stdout) as Seen;
}

const stdio = (): string[] => {
  const { PATH = "" } = process.env;
  const args = [join(root, "src/cli/main.ts"), "mcp", "--driver", "fake"];
  const env = { PATH, HOME: daemon.dir, VMSAN_DIR: daemon.dir };
  return ["stdio", JSON.stringify({ command: process.execPath, args, env })];
};

const http = async (): Promise<string[]> => {
  const { text } = await new Keys(layoutOf(daemon.dir).gateway).create({});
  return ["http", `${gateway.url}/mcp`, text];
};

describe.each(versions)("mcp %s of PyPI", (version) => {
  test.each([
    ["stdio", async () => await Promise.resolve(stdio())],
    ["HTTP", http],
  ])(
    "%s: progress, 10 MB, a command that hangs, a call that is given up",
    async (name, words) => {
      const nap = NAP + (name === "HTTP" ? 1 : 0) + (version.startsWith("1") ? 2 : 0);
      const seen = await seenBy(version, await words(), nap);
      expect(seen.tools).toHaveLength(15);
      expect(seen).toMatchObject({
        command: [true, expect.stringMatching(/line 1\nline 2\nline 3[^]*3/)],
        resource: 1 << 20,
        rest: [false, "xxxxxxxxxx"],
        hanging: [expect.any(Boolean), expect.stringMatching(/limit|timed out/), true],
        "after cancel": expect.stringContaining("still here"),
        // Version 1 does not say that it has given up; the command then ends with its time or its session.
        "left of the cancelled": version.startsWith("1") ? "1" : "0",
        "no file": [true, expect.stringContaining("/none")],
        destroyed: false,
      });
      expect(seen["progress"]).toBeGreaterThan(0);
      const [isBad, length] = seen["big"] as [boolean, number];
      expect([isBad, length > 1000 && length < 40_000]).toEqual([false, true]);
    },
    600_000,
  );
});
