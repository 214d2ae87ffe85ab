/**
 * Many nodes in one process, each with a daemon that has no VMs: node bench/lib/node-farm.ts KUBECONFIG-DIR DIR FIRST COUNT ADDRESS
 * Says `ready` once all are registered; ends them on SIGTERM.
 */
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { selfSigned } from "../../src/node/join/certificates.ts";
import { readKubeconfig } from "../../src/kube/kubeconfig.ts";
import { startNode } from "../../src/node/node.ts";
import { MockDaemon } from "./mock-daemon.ts";

const [configs = "", place = "", first = "0", count = "0", address = ""] = process.argv.slice(2);
const serving = selfSigned({ commonName: "farm", hosts: [address] });
const ends: (() => Promise<void>)[] = [];
for (let number = Number(first); number < Number(first) + Number(count); number += 1) {
  const name = `node-${number}`;
  const dir = join(place, name);
  mkdirSync(dir);
  const daemon = new MockDaemon(dir);
  await daemon.start();
  const { identity } = await readKubeconfig({ file: join(configs, `${name}.kubeconfig`) });
  const capacity = { cpus: 64, memoryBytes: 2 ** 38, pods: 110 };
  const node = await startNode({ identity, dir, name, address, port: 0, capacity, serving });
  ends.push(async () => {
    await node.close();
    daemon.close();
  });
}
console.log("ready");
await once(process, "SIGTERM");
await Promise.all(ends.map(async (end) => await end()));
