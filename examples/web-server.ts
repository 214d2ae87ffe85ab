/** A server in a VM, reached by a port of this host. */
import { setTimeout as sleep } from "node:timers/promises";
import { Vmsan } from "../src/index.ts";

const server = `require("http").createServer((q, a) => a.end("hello from " + require("os").release() + "\\n")).listen(8080)`;
const vmsan = new Vmsan();
const vm = await vmsan.create({ runtime: "node24", ports: ["18080:8080"], ephemeral: true });
try {
  vm.spawn(["node", "-e", server]);
  for (let attempt = 0; attempt < 100; attempt += 1) {
    try {
      const response = await fetch("http://127.0.0.1:18080/");
      process.stdout.write(await response.text());
      break;
    } catch {
      // Not listening yet.
      await sleep(200);
    }
  }
} finally {
  await vm.remove();
}
