/**
 * Kernel and runtimes below VMSAN_DIR, for the demo and the tests; quick when they are there.
 * Arguments: names of runtimes; default `base`.
 */
import { runSetup } from "../src/setup/index.ts";
import { layoutOf, vmsanDir } from "../src/util/paths.ts";

const report = await runSetup({
  layout: layoutOf(vmsanDir()),
  ...(process.argv.length > 2 ? { runtimes: process.argv.slice(2) } : {}),
  progress: ({ item, message }) => console.error(`    ${item ?? "setup"}: ${message ?? ""}`),
});
for (const { name, status, error } of report.items) {
  if (status === "failed") {
    console.error(
      `    ${name}: ${error?.message}\n      why: ${error?.why}\n      fix: ${error?.fix}`,
    );
  }
}
process.exitCode = report.ok ? 0 : 1;
