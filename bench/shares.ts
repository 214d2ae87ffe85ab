/**
 * bench/shares: a shared directory against QEMU's own virtiofs (virtiofsd with its default cache) in
 * the same guest, by turns: many small files and a large one. Time as the guest sees it, and the CPU
 * of QEMU and of the process that serves the files.
 *
 *   node bench/shares.ts [--rounds N] [--files N] [--mib N]    x86-64, as root
 *
 * virtiofsd is that of Debian's package qemu-system-common (12) or virtiofsd (13). QEMU gets the
 * device by a script of that name that comes first in the daemon's PATH. Prints JSON lines.
 */
import { execFileSync, spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Vmsan } from "../src/client/vmsan.ts";
import { bench, measured } from "./lib/bench.ts";
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
const QEMU = "qemu-system-x86_64";

/** Start virtiofsd for a directory. Resolves once it listens. */
async function startVirtiofsd(source: string, socket: string): Promise<void> {
  const kinds: [string, string[]][] = [
    ["/usr/lib/qemu/virtiofsd", ["-o", `source=${source}`]],
    ["/usr/libexec/virtiofsd", ["--shared-dir", source]],
  ];
  const found = kinds.find(([path]) => existsSync(path));
  if (found === undefined) throw new Error("there is no virtiofsd: apt-get install virtiofsd");
  const [path, args] = found;
  const child = spawn(path, [`--socket-path=${socket}`, ...args], {
    stdio: ["ignore", "ignore", "ignore"],
  });
  measured(child);
  for (let waited = 0; !existsSync(socket); waited += 1) {
    if (waited > 100 || child.exitCode !== null) throw new Error(`${path} does not start`);
    await sleep(100);
  }
}

/** Running processes of which it is so. */
function processes(so: (pid: number) => boolean): number[] {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return pids.map(Number).filter((pid) => {
    try {
      return so(pid);
    } catch {
      return false; // ENOENT, ESRCH: it has ended
    }
  });
}

await bench("shares", async (own) => {
  const { dir } = own;
  const [ours, theirs, tools] = ["ours", "theirs", "tools"].map((name) => join(dir, name)) as [
    string,
    string,
    string,
  ];
  for (const each of [ours, theirs, tools, join(dir, "bin")]) mkdirSync(each);
  buildProbe(tools);
  const socket = join(dir, "virtiofs.sock");
  await startVirtiofsd(theirs, socket);
  const real = execFileSync("sh", ["-c", `command -v ${QEMU}`], { encoding: "utf8" }).trim();
  const wrapper = join(dir, "bin", QEMU);
  const device = `-chardev socket,id=virtiofs,path=${socket} -global virtio-mmio.force-legacy=false -device vhost-user-fs-device,chardev=virtiofs,tag=theirs`;
  // The VM with shares alone: what is only probed has no virtiofsd.
  writeFileSync(
    wrapper,
    `#!/bin/sh\ncase "$*" in *chardev=shares*) exec ${real} "$@" ${device} ;; esac\nexec ${real} "$@"\n`,
  );
  chmodSync(wrapper, 0o755);
  process.env["PATH"] = `${join(dir, "bin")}:${process.env["PATH"] ?? ""}`;

  const env = ownHome(own);
  ownDirectory(env.VMSAN_DIR);
  const vmsan = new Vmsan({ dir: env.VMSAN_DIR });
  const vm = await vmsan.create({
    runtime: "base",
    driver: "qemu",
    mounts: [`${ours}:/ours`, `${tools}:/tools:ro`],
  });
  await asRoot(vm, "cp /tools/probe /root && mkdir -p /theirs && mount -t virtiofs theirs /theirs");
  const qemu = vm.view.pid ?? 0;
  const serving = {
    // It does its work in a child of its own, in a namespace of processes.
    theirs: processes((pid) =>
      readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(`=${socket}\0`),
    ),
    ours: processes(
      (pid) =>
        readlinkSync(`/proc/${pid}/exe`).includes("fileserver") &&
        readlinkSync(`/proc/${pid}/cwd`).startsWith(env.VMSAN_DIR),
    ),
  };
  const cpu = (side: "ours" | "theirs"): number =>
    [qemu, ...serving[side]].reduce((sum, pid) => sum + processCpu(pid), 0);
  await compare("shares", {
    vm,
    probe: "/root/probe",
    sides: ["ours", "theirs"],
    cpu,
    rounds: Number(flags.rounds),
    counts: { small: Number(flags.files), large: Number(flags.mib) },
  });
});
