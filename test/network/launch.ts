/** Builds the test tools and runs one of the worlds in namespaces of its own. */
import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { canOpen, hasTool } from "../../src/network/host/realm.ts";

/** Why worlds cannot be made here; undefined when they can. */
export function whyNot(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  if (!canOpen("/dev/net/tun")) return "/dev/net/tun cannot be opened";
  const missing = ["ip", "tc", "nft", "nsenter", "unshare", "go"].filter((tool) => !hasTool(tool));
  return missing.length === 0 ? undefined : `not installed: ${missing.join(", ")}`;
}

/** Paths of built tools, and of a directory for state, all in one temporary directory. */
export interface Bench {
  dir: string;
  helper: string;
  nettool: string;
  remove: () => void;
}

/** Build the helper and the test tool. */
export function buildBench(): Bench {
  const dir = mkdtempSync(join(tmpdir(), "vmsan-network-"));
  const build = (source: string, output: string): string => {
    const path = join(dir, output);
    execFileSync("go", ["build", "-trimpath", "-o", path, "."], {
      cwd: join(import.meta.dirname, source),
      env: { ...process.env, CGO_ENABLED: "0", GOFLAGS: "-buildvcs=false" },
      stdio: ["ignore", "ignore", "inherit"],
    });
    return path;
  };
  return {
    dir,
    helper: build("../../src/network/helper", "vmsan-nethelper"),
    nettool: build("nettool", "nettool"),
    remove: () => rmSync(dir, { recursive: true, force: true }),
  };
}

/**
 * Run a script of this folder in fresh network and mount namespaces; gives its lines.
 * @param job becomes its argument, with the paths of the tools and a state directory
 * @param env beyond this process's environment
 * @param started is given the process; when that is killed, so is the world
 */
export async function inWorld(
  bench: Bench,
  script: string,
  job: Record<string, unknown> = {},
  env: Record<string, string> = {},
  started: (child: ChildProcess) => void = () => undefined,
): Promise<Record<string, unknown>[]> {
  const state = mkdtempSync(join(bench.dir, "state-"));
  const full = { ...job, nettool: bench.nettool, helper: bench.helper, dir: state };
  const child = spawn(
    "unshare",
    [
      "--net",
      "--mount",
      "--kill-child",
      "--fork",
      "--pid",
      "--mount-proc",
      "--",
      process.execPath,
      join(import.meta.dirname, script),
      JSON.stringify(full),
    ],
    { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } },
  );
  started(child);
  const lines: Record<string, unknown>[] = [];
  let complaints = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    complaints = (complaints + text).slice(-5000);
  });
  const input = createInterface({ input: child.stdout });
  input.on("line", (line) => lines.push(JSON.parse(line) as Record<string, unknown>));
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  if (code !== 0) throw new Error(`${script} ended with ${code}: ${complaints}`);
  return lines;
}
