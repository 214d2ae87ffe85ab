/** A VMSAN_DIR of a measurement's own that shares what takes long to make, and what its processes use. */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, readdirSync, symlinkSync } from "node:fs";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { measured } from "./bench.ts";
import { callVmsan, vmsan } from "./home.ts";
import { childrenCpu, processTreeCpu } from "./measure.ts";

/** What is made once and not changed by VMs. */
const SHARED = ["kernels", "runtimes", "initramfs", "probes", "images", "rootfs"];

/** Such a directory, used by the command line. */
export interface Directory {
  dir: string;
  env: NodeJS.ProcessEnv;
  /** Run the command line; what it prints, and its wall time in milliseconds. */
  call(...args: string[]): { out: string; ms: number };
  /** The same with the processor time of the command, its daemon and all VMMs while it ran, in milliseconds. */
  measured(...args: string[]): { out: string; ms: number; cpuMs: number };
  /** The command so many times at once; what each has printed. */
  together(
    count: number,
    ...args: string[]
  ): Promise<{ outs: string[]; ms: number; cpuMs: number }>;
}

/** Make one. @param dir an absolute path; made if it is missing */
export function ownDirectory(dir: string): Directory {
  const prepared = process.env["VMSAN_DIR"] ?? resolve(import.meta.dirname, "../../.cache/vmsan");
  mkdirSync(dir, { recursive: true });
  for (const name of SHARED) {
    mkdirSync(join(prepared, name), { recursive: true });
    symlinkSync(join(prepared, name), join(dir, name));
  }
  const env = { ...process.env, VMSAN_DIR: dir };
  const call = (...args: string[]): { out: string; ms: number } => {
    const from = performance.now();
    const out = callVmsan(env, ...args);
    return { out, ms: performance.now() - from };
  };
  return {
    dir,
    env,
    call,
    measured: (...args) => {
      const before = cpuOfDirectory(dir) + childrenCpu();
      const called = call(...args);
      return { ...called, cpuMs: cpuOfDirectory(dir) + childrenCpu() - before };
    },
    together: async (count, ...args) => {
      const before = cpuOfDirectory(dir) + childrenCpu();
      const from = performance.now();
      const outs = await Promise.all(
        Array.from({ length: count }, async () => (await run(vmsan, args, env)).trim()),
      );
      const ms = performance.now() - from;
      return { outs, ms, cpuMs: cpuOfDirectory(dir) + childrenCpu() - before };
    },
  };
}

/** Run a program to its end, beside others. @throws when its status is not 0, with what it said */
async function run(file: string, args: string[], env: NodeJS.ProcessEnv): Promise<string> {
  const child = spawn(file, args, { env, stdio: ["ignore", "pipe", "pipe"] });
  measured(child);
  const said = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (text: string) => (said[name] += text));
  }
  const [code] = (await once(child, "close")) as [number | null];
  if (code === 0) return said.stdout;
  throw new Error(`${args.join(" ")}: ${code ?? "a signal"}: ${said.stderr}`);
}

/** Wait until a template has been made behind a start. @param prefix `booted-` for a booted machine; default: of an image */
export async function awaitTemplate({ dir }: Directory, prefix = ""): Promise<void> {
  const name = new RegExp(`^${prefix}[0-9a-f]{32}$`);
  for (let waited = 0; waited < 600; waited += 1) {
    const shelf = join(dir, "templates");
    if (existsSync(shelf) && readdirSync(shelf).some((one) => name.test(one))) return;
    await sleep(1000);
  }
  throw new Error("no template was made");
}

/** End its daemon; its VMs must be gone. */
export function endDirectory({ env }: Directory): void {
  spawnSync(vmsan, ["daemon", "stop"], { env, stdio: "ignore" });
}

/** Processor time in milliseconds that the processes of a VMSAN_DIR have used so far, with VMMs that have ended. */
export function cpuOfDirectory(dir: string): number {
  let ms = 0;
  for (const name of readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
    const pid = Number(name);
    try {
      // VMMs get no environment: they are known by where they work.
      const words = readFileSync(`/proc/${pid}/environ`, "latin1").split("\0");
      const cmdline = readFileSync(`/proc/${pid}/cmdline`, "latin1");
      const isVmm = cmdline.includes("guest=vmsan-") && cmdline.includes(`${dir}/`);
      if (words.includes(`VMSAN_DIR=${dir}`) || isVmm) ms += processTreeCpu(pid);
    } catch {
      // ENOENT, ESRCH: it ended while we looked; EACCES: another user's.
    }
  }
  return ms;
}

/** Memory of a process that is its own share, in MiB. */
export function pssMib(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "latin1");
  return Number(/^Pss:\s*(\d+)/m.exec(text)?.[1]) / 1024;
}
