/** Debian's docker-registry on a loopback port of its own, started and stopped by tests. */
import { execFileSync, spawn } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Authority } from "../fixtures/certificates.ts";

/** A running registry. */
export interface TestRegistry {
  /** `127.0.0.1:PORT`. */
  host: string;
  /** PEM file of the authority that signed its certificate, when it has TLS. */
  caFile: string | undefined;
  stop(): Promise<void>;
}

/** How the registry is set up. */
export interface TestRegistryOptions {
  tls?: boolean;
  user?: { name: string; password: string };
}

/** Whether a program is installed; says so when it is not, so that a skip has its reason. */
export function hasTool(name: string): boolean {
  try {
    execFileSync("which", [name], { stdio: "ignore" });
    return true;
  } catch {
    // `which` fails for what is not there: that is the answer.
    console.warn(`skipped: ${name} is not installed (scripts/test.sh installs it)`);
    return false;
  }
}

/** The address of such a registry, and names that lead to it in tests. */
const HOSTS = ["IP:127.0.0.1", "DNS:localhost", "DNS:named.test"];

/** Start a registry and wait until it listens. */
export async function startRegistry(options: TestRegistryOptions = {}): Promise<TestRegistry> {
  const dir = mkdtempSync(join(tmpdir(), "vmsan-registry-"));
  const authority = options.tls === true ? new Authority(dir) : undefined;
  const served = authority?.issue("srv", "/CN=127.0.0.1", HOSTS);
  let auth = "";
  if (options.user !== undefined) {
    const { name, password } = options.user;
    const line = execFileSync("htpasswd", ["-niB", name], { input: password, encoding: "utf8" });
    writeFileSync(join(dir, "htpasswd"), line);
    auth = `auth: {htpasswd: {realm: test, path: ${join(dir, "htpasswd")}}}\n`;
  }
  const certificate =
    served === undefined ? "" : `, tls: {certificate: ${served.certFile}, key: ${served.keyFile}}`;
  const config = join(dir, "config.yml");
  writeFileSync(
    config,
    `version: 0.1\nlog: {level: info, formatter: json, accesslog: {disabled: true}}\n` +
      `storage: {filesystem: {rootdirectory: ${dir}/data}, delete: {enabled: true}}\n` +
      `http: {addr: "127.0.0.1:0"${certificate}}\n${auth}`,
  );
  // To a file, not a pipe: a test that waits for a program with execFileSync reads no pipe,
  // and a registry whose pipe is full stands still.
  const log = join(dir, "log");
  const output = openSync(log, "w");
  const child = spawn("docker-registry", ["serve", config], {
    stdio: ["ignore", output, output],
    env: { PATH: process.env["PATH"], OTEL_TRACES_EXPORTER: "none" },
  });
  closeSync(output);
  let ended = false;
  let failure = "";
  const gone = new Promise<void>((resolve) => {
    child.once("error", ({ message }) => {
      failure = `${message}\n`;
      resolve();
    });
    child.once("close", () => resolve());
  }).then(() => {
    ended = true;
  });
  let host: string | undefined;
  while (host === undefined) {
    const said = readFileSync(log, "utf8");
    host = /listening on (127\.0\.0\.1:\d+)/.exec(said)?.[1];
    if (ended) throw new Error(`docker-registry ended: ${failure}${said.slice(-2000)}`);
    if (host === undefined) await sleep(20);
  }
  return {
    host,
    caFile: authority?.certFile,
    async stop() {
      child.kill("SIGKILL");
      await gone;
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
