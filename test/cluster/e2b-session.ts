/**
 * What E2B's SDK does with a gateway, as a program of its own: the gateway is in another network namespace than the tests.
 *
 *   node test/cluster/e2b-session.ts URL KEY TEMPLATE FILE
 *
 * Prints what came of it as JSON; ends with a message at the first surprise.
 */
import { CommandExitError, NotFoundError, Sandbox } from "e2b";

const [url = "", apiKey = "", template = "", file = ""] = process.argv.slice(2);
const options = { apiKey, apiUrl: url, sandboxUrl: url };
// Long: a guest may have to boot on a machine with other work.
const sandbox = await Sandbox.create(template, {
  ...options,
  metadata: { task: "one" },
  envs: { FROM_CREATE: "set" },
  timeoutMs: 900_000,
  requestTimeoutMs: 300_000,
});
const { stdout } = await sandbox.commands.run('echo "$FROM_CREATE"; id -u');
const exitCode = await sandbox.commands.run("exit 3").then(
  () => 0,
  (error: unknown) => (error instanceof CommandExitError ? error.exitCode : -1),
);
const content = "a".repeat(1 << 20);
await sandbox.files.write(file, content);
const same = (await sandbox.files.read(file)) === content;
const listed = await Sandbox.list({ ...options, query: { metadata: { task: "one" } } }).nextItems();
const pause = await sandbox.pause().then(String, String);
const again = await Sandbox.connect(sandbox.sandboxId, options);
const counted = (await again.commands.run("wc -c < " + file)).stdout.trim();
await sandbox.kill();
const gone = await Sandbox.connect(sandbox.sandboxId, options).then(
  () => false,
  (error: unknown) => error instanceof NotFoundError,
);
const ids = listed.map(({ sandboxId }) => sandboxId === sandbox.sandboxId);
console.log(
  JSON.stringify({ id: sandbox.sandboxId, stdout, exitCode, same, ids, pause, counted, gone }),
);
