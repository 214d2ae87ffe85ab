/** Kernel and base image below VMSAN_DIR, for the demo and the tests; skipped when there. */
import { ensureKernel } from "../src/boot/kernel.ts";
import { builtinRuntimes, ensureRuntime } from "../src/runtimes/index.ts";
import type { ProgressEvent } from "../src/model/progress.ts";
import { layoutOf, vmsanDir } from "../src/util/paths.ts";

const layout = layoutOf(vmsanDir());
const progress = (event: ProgressEvent): void =>
  console.error(`    ${event.item ?? event.phase}: ${event.message ?? ""}`);
const kernel = await ensureKernel({ dir: layout.kernels, progress });
const base = await ensureRuntime({
  dir: layout.runtimes,
  name: "base",
  catalogue: builtinRuntimes,
  progress,
});
console.error(`    kernel ${kernel.version}, base ${base.built?.manifest.slice(0, 19) ?? ""}`);
