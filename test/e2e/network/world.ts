/** What tests of real guests in network namespaces of their own stand on. */
import { afterAll, beforeAll } from "vitest";
import { buildBench } from "../../network/launch.ts";
import type { Bench } from "../../network/launch.ts";
import { freshDir, removeDir } from "../support.ts";

/** Built tools, and a VMSAN_DIR with all that guests boot from; not there when there is a reason to skip. */
export function guestWorld(reason: string | undefined): {
  readonly bench: Bench;
  readonly dir: string;
} {
  const rung = { bench: undefined as unknown as Bench, dir: "" };
  beforeAll(async () => {
    if (reason !== undefined) return;
    rung.bench = buildBench();
    rung.dir = await freshDir(["kernels", "runtimes", "initramfs", "probes", "rootfs", "images"]);
  });
  afterAll(async () => {
    if (reason !== undefined) return;
    await removeDir(rung.dir);
    rung.bench.remove();
  });
  return rung;
}
