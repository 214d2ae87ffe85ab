/** What users of dockerode do, against an engine of the fake driver. Argument: a package.json beside the node_modules that has it. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createRequire } from "node:module";
import { PassThrough } from "node:stream";
import { text } from "node:stream/consumers";

const require = createRequire(process.argv[2]);
const Docker = require("dockerode");

const docker = new Docker();
assert.equal((await docker.ping()).toString(), "OK");

// run() attaches without an upgrade, with a terminal.
const shown = new PassThrough();
const all = text(shown);
const [outcome, ran] = await docker.run("alpine", ["sh", "-c", "echo from node; exit 4"], shown);
assert.deepEqual([outcome.StatusCode, await all], [4, "from node\r\n"]);
await ran.remove();

// Both outputs apart, and input over a connection that is taken over.
const one = await docker.createContainer({
  name: "one",
  Image: "alpine",
  Cmd: ["sh", "-c", "read word; echo got $word; echo err >&2; sleep 300"],
  OpenStdin: true,
  AttachStdin: true,
  AttachStdout: true,
  AttachStderr: true,
  Labels: { a: "b" },
});
const since = Math.floor(Date.now() / 1000);
const attached = await one.attach({
  stream: true,
  stdin: true,
  stdout: true,
  stderr: true,
  hijack: true,
});
const [out, err] = [new PassThrough(), new PassThrough()];
docker.modem.demuxStream(attached, out, err);
const both = Promise.all([once(out, "data"), once(err, "data")]);
await one.start();
attached.write("typed\n");
const [[first], [second]] = await both;
assert.deepEqual([String(first), String(second)], ["got typed\n", "err\n"]);
attached.destroy();

const filters = { label: ["a=b"] };
assert.deepEqual(
  (await docker.listContainers({ filters })).map(({ Names }) => Names),
  [["/one"]],
);
const log = await one.logs({ stdout: true, stderr: false });
assert.equal(log.subarray(8).toString(), "got typed\n");

/** A command in it: what it prints, and its status. */
async function exec(options, start, input) {
  const command = await one.exec({ AttachStdout: true, AttachStderr: true, ...options });
  const stream = await command.start(start);
  if (input !== undefined) stream.end(input);
  const said = new PassThrough();
  docker.modem.demuxStream(stream, said, said);
  stream.on("end", () => said.end());
  const output = await text(said);
  return [output, (await command.inspect()).ExitCode];
}
assert.deepEqual(await exec({ Cmd: ["sh", "-c", "echo out; exit 2"] }, {}), ["out\n", 2]);
const reads = { Cmd: ["cat"], AttachStdin: true };
assert.deepEqual(await exec(reads, { hijack: true, stdin: true }, "in\n"), ["in\n", 0]);

const until = Math.ceil(Date.now() / 1000) + 1;
const events = await docker.getEvents({ since, until, filters: { container: ["one"] } });
const actions = (await text(events))
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line).Action);
assert.deepEqual(
  actions.filter((action) => ["create", "attach", "start"].includes(action)),
  ["create", "attach", "start"],
);
const stats = await one.stats({ stream: false });
assert.equal(stats.name, "/one");
await one.stop({ t: 20 });
assert.equal((await one.wait()).StatusCode, 143);
await one.remove();
await assert.rejects(docker.getContainer("one").inspect(), { statusCode: 404 });

const volume = await docker.createVolume({ Name: "v-1", Labels: { a: "b" } });
assert.equal((await volume.inspect()).Labels.a, "b");
await volume.remove();
const network = await docker.createNetwork({ Name: "n-1" });
assert.equal((await network.inspect()).Name, "n-1");
await network.remove();
process.stdout.write("all is well\n");
