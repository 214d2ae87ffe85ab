/**
 * What a node of a cluster costs by itself: the API server is the tests' own, in memory, and the daemon one
 * that has no VMs, so that all there is to be seen is `vmsan node`, as it is in the package.
 *
 * node bench/cluster.ts [--pods N]
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { selfSigned } from "../src/node/join/certificates.ts";
import { FakeApiServer } from "../test/fixtures/api-server.ts";
import { bench, measured } from "./lib/bench.ts";
import type { Bench } from "./lib/bench.ts";
import { processCpu, residentMb } from "./lib/measure.ts";
import { MockDaemon } from "./lib/mock-daemon.ts";
import { packagedVmsan } from "./lib/package.ts";

const { values } = parseArgs({ options: { pods: { type: "string", default: "500" } } });
const count = Number(values.pods);

/** A node that runs as users start it. */
interface Started {
  pid: number;
  end(): Promise<void>;
}

async function node(program: string, dir: string, words: readonly string[]): Promise<Started> {
  const child = spawn(program, ["node", "run", "--json", "--driver=fake", ...words], {
    env: { ...process.env, VMSAN_DIR: dir },
    stdio: ["ignore", "pipe", "inherit"],
  });
  measured(child);
  await once(child.stdout.setEncoding("utf8"), "data");
  const end = async (): Promise<void> => {
    const closed = once(child, "close");
    child.kill("SIGTERM");
    await closed;
  };
  return { pid: child.pid ?? 0, end };
}

const show = (what: string, value: string): void => console.log(`${what.padEnd(44)}${value}`);

async function measure({ dir, defer }: Bench): Promise<void> {
  const api = new FakeApiServer();
  const url = await api.start();
  defer(async () => await api.stop());
  const daemon = new MockDaemon(dir);
  await daemon.start();
  defer(() => daemon.close());
  const { cert, key } = selfSigned({ commonName: "host-1", hosts: ["127.0.0.1"] });
  const [certFile, keyFile, config] = ["cert.pem", "key.pem", "config"].map((name) =>
    join(dir, name),
  );
  mkdirSync(join(dir, "package"));
  writeFileSync(certFile ?? "", cert);
  writeFileSync(keyFile ?? "", key);
  const named = (name: string, what: object): object => ({ name, ...what });
  writeFileSync(
    config ?? "",
    JSON.stringify({
      "current-context": "a",
      contexts: [named("a", { context: { cluster: "a" } })],
      clusters: [named("a", { cluster: { server: url } })],
    }),
  );
  const words = [
    `--kubeconfig=${config}`,
    "--name=host-1",
    "--address=127.0.0.1",
    "--port=0",
    `--tls-cert=${certFile}`,
    `--tls-key=${keyFile}`,
    `--client-ca=${certFile}`,
  ];
  const program = packagedVmsan(join(dir, "package"));
  const first = await node(program, dir, words);
  await sleep(1_000);
  show("resident, no pods", `${residentMb(first.pid, "VmRSS")} MB`);
  const before = processCpu(first.pid);
  const begun = performance.now();
  const names = Array.from({ length: count }, (_, index) => `pod-${index}`);
  for (const name of names)
    api.add(name, { containers: [{ name: "main", image: "a", command: ["b"] }] });
  const running = (): boolean => names.every((name) => api.state(name)?.kind === "running");
  await api.until("all run", running, 600_000);
  const tookMs = performance.now() - begun;
  show(`${count} pods to Running`, `${((count * 1000) / tookMs).toFixed(0)} pods/s`);
  show("CPU of the node", `${((processCpu(first.pid) - before) / count).toFixed(2)} ms a pod`);
  await sleep(2_000);
  show("resident, with them", `${residentMb(first.pid, "VmRSS")} MB`);
  const idle = processCpu(first.pid);
  await sleep(30_000);
  show("CPU of the node, idle", `${(processCpu(first.pid) - idle).toFixed(0)} ms in 30 s`);
  await first.end();
  const again = performance.now();
  const attached = daemon.attached;
  const second = await node(program, dir, words);
  await api.until("all adopted", () => daemon.attached - attached >= count, 600_000);
  show(`start of a node that adopts ${count} VMs`, `${(performance.now() - again).toFixed(0)} ms`);
  show("CPU of that, with the start of Node.js", `${processCpu(second.pid).toFixed(0)} ms`);
  const leaving = performance.now();
  const used = processCpu(second.pid);
  for (const name of names) api.remove(name, 1);
  await api.until("all are gone", () => api.pods.size === 0, 600_000);
  show(
    `${count} pods deleted`,
    `${((count * 1000) / (performance.now() - leaving)).toFixed(0)} pods/s`,
  );
  show("CPU of the node", `${((processCpu(second.pid) - used) / count).toFixed(2)} ms a pod`);
  const writes = names.map((name) => api.writes(name).length);
  show("API writes a pod, most", String(Math.max(...writes)));
  show("resident, highest", `${residentMb(second.pid, "VmHWM")} MB`);
  await second.end();
}

await bench("cluster", measure);
