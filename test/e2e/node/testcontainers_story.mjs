/** What users of testcontainers for Node do, in guests that boot. Argument: a package.json beside the node_modules that has it. */
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { text } from "node:stream/consumers";

const require = createRequire(process.argv[2]);
const { GenericContainer, Network, Wait } = require("testcontainers");

const STARTUP_MS = 600_000;
// Streams of logs do not keep a process of theirs: it would end while the answer is on its way.
const alive = setInterval(() => undefined, 60_000);
const network = await new Network().start();
const web = await new GenericContainer("alpine")
  .withEnvironment({ GREETING: "hello" })
  .withCopyContentToContainer([{ content: "a page\n", target: "/tmp/www/page" }])
  .withCommand(["sh", "-c", "echo $GREETING; echo is up >&2; exec httpd -f -p 8080 -h /tmp/www"])
  .withExposedPorts(8080)
  .withNetwork(network)
  .withNetworkAliases("web")
  .withTmpFs({ "/scratch": "rw,size=1m" })
  .withUlimits({ nofile: { soft: 512, hard: 1024 } })
  .withLabels({ story: "node" })
  // Its ports are looked for by commands in the guest as well as from here.
  .withWaitStrategy(Wait.forAll([Wait.forLogMessage(/is up/), Wait.forListeningPorts()]))
  .withStartupTimeout(STARTUP_MS)
  .start();
const page = await fetch(`http://${web.getHost()}:${web.getMappedPort(8080)}/page`);
assert.equal(await page.text(), "a page\n");
const echo = await web.exec(["sh", "-c", "echo $GREETING $MORE; ulimit -n; echo bad >&2; exit 3"], {
  env: { MORE: "more" },
});
assert.deepEqual([echo.exitCode, echo.stdout, echo.stderr], [3, "hello more\n512\n", "bad\n"]);
const { output } = await web.exec(["sh", "-c", "grep -c ' /scratch tmpfs ' /proc/mounts"]);
assert.equal(output, "1\n");
const archive = await text(await web.copyArchiveFromContainer("/tmp/www/page"));
assert.match(archive, /a page/);

// Another one finds it by its name, ends, and what it said is there.
const client = await new GenericContainer("alpine")
  .withCommand(["wget", "-qO-", "http://web:8080/page"])
  .withNetwork(network)
  .withWaitStrategy(Wait.forOneShotStartup())
  .withStartupTimeout(STARTUP_MS)
  .start();
let said = "";
for await (const part of await client.logs()) said += part;
assert.match(said, /a page/);
await client.stop();

await web.restart({ timeout: 1 });
const again = await fetch(`http://${web.getHost()}:${web.getMappedPort(8080)}/page`);
assert.equal(await again.text(), "a page\n");
await web.stop();
await network.stop();
clearInterval(alive);
process.stdout.write("all is well\n");
