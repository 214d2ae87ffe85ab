/**
 * bench/volumes: a shared volume against one with a disk, in the same guest, by turns: many small files and a large one. Time as
 * the guest sees it, and the CPU of QEMU and of the file server. The large file is synced, small ones on a disk may still be on their way.
 *
 *   node bench/volumes.ts [--rounds N] [--files N] [--mib N]    prints JSON lines
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, symlinkSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { Vmsan } from "../src/client/vmsan.ts";
import { layoutOf } from "../src/util/paths.ts";
import { findLeftovers } from "../src/vmm/leftovers.ts";
import { bench } from "./lib/bench.ts";
import { asRoot, compare } from "./lib/file-work.ts";
import { ownHome } from "./lib/home.ts";
import { processCpu } from "./lib/measure.ts";

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    files: { type: "string", default: "500" },
    mib: { type: "string", default: "64" },
  },
});
const root = resolve(import.meta.dirname, "..");
const prepared = process.env["VMSAN_DIR"] ?? join(root, ".cache/vmsan");

await bench("volumes", async (own) => {
  const tools = join(own.dir, "tools");
  mkdirSync(tools);
  execFileSync("go", ["build", "-o", join(tools, "probe"), "."], {
    cwd: join(root, "test/shares"),
    env: { ...process.env, CGO_ENABLED: "0" },
  });
  const env = ownHome(own);
  mkdirSync(env.VMSAN_DIR);
  for (const name of ["kernels", "runtimes", "initramfs", "probes", "rootfs", "images"]) {
    symlinkSync(join(prepared, name), join(env.VMSAN_DIR, name));
  }
  const vmsan = new Vmsan({ dir: env.VMSAN_DIR });
  await vmsan.volumes.create("shared", { shared: true });
  const vm = await vmsan.create({
    runtime: "base",
    mounts: ["shared:/shared", "disk:/disk", `${tools}:/tools:ro`],
  });
  await asRoot(vm, "cp /tools/probe /root");
  const [server] = await findLeftovers(join(layoutOf(env.VMSAN_DIR).vms, vm.id), "shares.json");
  const pids = [vm.view.pid, server?.pid].filter((pid) => pid !== undefined);
  await compare("volumes", {
    vm,
    probe: "/root/probe",
    sides: ["shared", "disk"],
    // The file server does nothing for the disk.
    cpu: () => pids.reduce((all, pid) => all + processCpu(pid), 0),
    rounds: Number(flags.rounds),
    counts: { small: Number(flags.files), large: Number(flags.mib) },
  });
});
