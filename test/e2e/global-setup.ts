/** Before the end-to-end tests: what `npm test` prepares must be there; after: no daemon stays. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { agentBinary } from "../../src/util/package.ts";
import { preparedDir, vmsan } from "./support.ts";

/** Fails early and says what to run. */
export function setup(): void {
  const needed = [agentBinary(), join(preparedDir, "kernels"), join(preparedDir, "runtimes")];
  const missing = needed.filter((path) => !existsSync(path));
  if (missing.length > 0) {
    throw new Error(`missing: ${missing.join(", ")}; run: npm test (or scripts/test.sh e2e)`);
  }
}

/** Ends the daemon of the prepared directory, if a test has started one. */
export async function teardown(): Promise<void> {
  await vmsan(["daemon", "stop"]);
}
