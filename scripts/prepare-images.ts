/** Kernel and base image below VMSAN_DIR, for the demo and the tests; quick when they are there. */
import { runSetup } from "../src/setup/index.ts";
import { layoutOf, vmsanDir } from "../src/util/paths.ts";

const report = await runSetup({
  layout: layoutOf(vmsanDir()),
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
