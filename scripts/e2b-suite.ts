/**
 * E2B's own tests against a gateway with real guests:
 * `node scripts/e2b-suite.ts CHECKOUT js|python|interpreter-js|interpreter-python [FILTER…]`.
 * CHECKOUT is a checkout of E2B's repository, or of its code interpreter's, with the dependencies of its SDK installed (js: in
 * node_modules beside its tests; python: pytest and the package's own for the interpreter that
 * E2B_PYTHON names). Nothing is fetched: a test that builds from an image of a public registry takes what the host's store has under its name. E2B_SUITE_DRIVER=fake takes processes of this host for guests, which is
 * fast and shows what the gateway answers, not what guests do; the host then needs a user `user` as guests have. E2B_SUITE_BATCH is how many
 * files one process of the test runner takes. FILTERs are parts of file names: the suites are long under emulation and
 * can be run in groups. What each file gave is kept in .cache/e2b-suite/, and docs/e2b-compat.md is
 * written of all that is there.
 */
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { Keys } from "../src/gateway/access/keys.ts";
import { startGateway } from "../src/gateway/gateway.ts";
import { writeFileAtomic } from "../src/util/atomic.ts";
import { layoutOf, vmsanDir } from "../src/util/paths.ts";
import { DOMAIN, localHosts } from "./e2b-suite/hosts.ts";
import { writePage } from "./e2b-suite/page.ts";
import { crashed, readJunit, readVitest } from "./e2b-suite/results.ts";
import { suites } from "./e2b-suite/suites.ts";

const [checkout, language = "", ...filters] = process.argv.slice(2);
const suite = suites[language];
if (checkout === undefined || suite === undefined) {
  throw new Error(
    "usage: node scripts/e2b-suite.ts CHECKOUT js|python|interpreter-js|interpreter-python [FILTER…]",
  );
}
/** Files that one process of the runner takes: starting it costs more than many a file. */
const BATCH = Number(process.env["E2B_SUITE_BATCH"] ?? 1);
const root = resolve(import.meta.dirname, "..");
const source = join(resolve(checkout), suite.folder);
const tests = join(source, "tests");

/** Run one program to its end, whatever its status is. */
async function run([program = "", ...args]: string[], env: Record<string, string>): Promise<void> {
  const child = spawn(program, args, {
    cwd: source,
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, ...env },
  });
  await new Promise((done, fail) => child.once("error", fail).once("exit", done));
}

const scratch = await mkdtemp(join(tmpdir(), "vmsan-e2b-suite-"));
const kept = join(root, ".cache/e2b-suite");
const dir = vmsanDir();
const fake = process.env["E2B_SUITE_DRIVER"] === "fake";
const local = await localHosts(scratch);
const listen = "127.0.0.1:0";
// Sandboxes' hosts are always https; the calls of the SDKs go without, as on any own machine.
const ports = await startGateway({ dir, listen, domains: [DOMAIN], tls: local.tls });
const gateway = await startGateway({
  dir,
  listen,
  domains: [`${DOMAIN}:${ports.port}`],
  driver: fake ? "fake" : "auto",
});
const keys = new Keys(layoutOf(dir).gateway);
const { key, text } = await keys.create({ project: `e2b-suite-${language}` });
try {
  const all = (await readdir(tests, { recursive: true })).filter(suite.isTest).toSorted();
  const chosen: string[] = [];
  const left: [string, string][] = [];
  for (const name of all) {
    const why = suite.besides(name, await readFile(join(tests, name), "utf8"));
    if (why !== undefined) left.push([name, why]);
    else if (filters.length === 0 || filters.some((filter) => name.includes(filter)))
      chosen.push(name);
  }
  await mkdir(kept, { recursive: true });
  const file = join(kept, `${language}.json`);
  const version = await suite.version(source);
  // A few after the other: what is interrupted keeps the results of those before.
  for (let i = 0; i < chosen.length; i += BATCH) {
    const names = chosen.slice(i, i + BATCH);
    const report = join(scratch, "report");
    await rm(report, { force: true });
    await run(await suite.command(root, scratch, report, names), {
      E2B_API_URL: gateway.url,
      E2B_SANDBOX_URL: gateway.url,
      E2B_API_KEY: `e2b_${text}`,
      ...local.env,
    });
    const content = await readFile(report, "utf8").catch(() => "");
    const now =
      content === ""
        ? Object.fromEntries(names.map((name) => [name, crashed()]))
        : language.endsWith("js")
          ? readVitest(content, (path) => relative(tests, path))
          : readJunit(content, names);
    const before = await readFile(file, "utf8").then(
      (known) => (JSON.parse(known) as { files: object }).files,
      () => ({}),
    );
    const when = new Date().toISOString().slice(0, 16).replace("T", " ");
    for (const result of Object.values(now)) Object.assign(result, { fake, when });
    const files = { ...before, ...now };
    await writeFileAtomic(file, `${JSON.stringify({ version, all, left, files }, null, 2)}\n`);
    await writePage(join(root, "docs/e2b-compat.md"), kept);
    for (const [of, { passed, failed }] of Object.entries(now)) {
      console.log(`${of}: ${passed.length} passed, ${failed.length} failed`);
      for (const { test, message } of failed) console.log(`  ${test}: ${message}`);
    }
  }
} finally {
  await keys.remove(key.id);
  await gateway.close();
  await ports.close();
  await rm(scratch, { recursive: true, force: true });
}
