/**
 * bench/volumes: a shared volume against one with a disk, in the same guest, by turns: many small files and a large one. Time as
 * the guest sees it, and the CPU of QEMU and of the file server. The large file is synced, small ones on a disk may still be on their way.
 *
 *   node bench/volumes.ts [--rounds N] [--files N] [--mib N]    prints JSON lines
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Vmsan } from "../src/client/vmsan.ts";
import { layoutOf } from "../src/util/paths.ts";
import { findLeftovers } from "../src/vmm/leftovers.ts";
import { bench } from "./lib/bench.ts";
import { ownDirectory } from "./lib/directory.ts";
import { asRoot, buildProbe, compare } from "./lib/file-work.ts";
import { ownHome } from "./lib/home.ts";
import { processCpu } from "./lib/measure.ts";

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    files: { type: "string", default: "500" },
    mib: { type: "string", default: "64" },
  },
});

await bench("volumes", async (own) => {
  const tools = join(own.dir, "tools");
  mkdirSync(tools);
  buildProbe(tools);
  const env = ownHome(own);
  ownDirectory(env.VMSAN_DIR);
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
