/** What the end-to-end tests share: the command line as a user runs it, and what it leaves. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { mkdtemp, readdir, rm, symlink, mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { addKernel, selectKernel } from "../../src/boot/kernel.ts";

/** The checkout. */
export const root = resolve(import.meta.dirname, "../..");
/** The command as users call it. */
export const vmsanBin = join(root, "bin/vmsan");

/** How a command ended; bytes as they came. */
export interface Outcome {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: Buffer;
  stderr: string;
}

/** What {@link vmsan} takes besides arguments. */
export interface CallOptions {
  /** VMSAN_DIR; default the prepared one. */
  dir?: string;
  input?: Uint8Array | string;
  env?: Record<string, string>;
  timeoutMs?: number;
  /** Receives the running process, to signal it. */
  onProcess?: (child: ChildProcess) => void;
}

/** The VMSAN_DIR that `npm test` has prepared: kernel and base image are in it. */
export const preparedDir = process.env["VMSAN_DIR"] ?? join(root, ".cache/vmsan");

/** Run bin/vmsan and wait for its end. */
export async function vmsan(args: string[], options: CallOptions = {}): Promise<Outcome> {
  const child = spawn(vmsanBin, args, {
    stdio: ["pipe", "pipe", "pipe"],
    env: { ...process.env, VMSAN_DIR: options.dir ?? preparedDir, ...options.env },
  });
  options.onProcess?.(child);
  const stdout: Buffer[] = [];
  let stderr = "";
  child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.input ?? "");
  const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? 200_000);
  return await new Promise((done, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      done({ code, signal, stdout: Buffer.concat(stdout), stderr });
    });
  });
}

/** Run bin/vmsan, which must succeed. @returns its standard output as text */
export async function vmsanOk(args: string[], options: CallOptions = {}): Promise<string> {
  const outcome = await vmsan(args, options);
  if (outcome.code !== 0) {
    throw new Error(
      `vmsan ${args.join(" ")}: ${outcome.signal ?? `status ${outcome.code}`}\n${outcome.stderr}\n${outcome.stdout.toString()}`,
    );
  }
  return outcome.stdout.toString();
}

/** Run bin/vmsan with --json. */
export async function vmsanJson<T = Record<string, unknown>>(
  args: string[],
  options: CallOptions = {},
): Promise<T> {
  return JSON.parse(await vmsanOk([...args.slice(0, 1), "--json", ...args.slice(1)], options)) as T;
}

/** The error code that a failing command reports. */
export async function errorCode(args: string[], options: CallOptions = {}): Promise<string> {
  const outcome = await vmsan([...args.slice(0, 1), "--json", ...args.slice(1)], options);
  const reply = JSON.parse(outcome.stdout.toString()) as {
    error?: { code: string; message: string; why: string; fix: string };
  };
  if (outcome.code === 0 || reply.error === undefined) {
    throw new Error(`vmsan ${args.join(" ")} did not fail: ${outcome.stdout.toString()}`);
  }
  for (const part of ["message", "why", "fix"] as const) {
    if (reply.error[part] === "") throw new Error(`${reply.error.code} has no ${part}`);
  }
  return reply.error.code;
}

/** Kernel that guests are to boot instead of the prepared one; its modules lie beside it. */
const testKernel = process.env["VMSAN_TEST_KERNEL"];

/** A kernel store with the tests' kernel alone. */
async function storeTestKernel(dir: string, file: string): Promise<void> {
  const modulesDir = `${file}.modules`;
  const modules = existsSync(modulesDir) ? { modulesDir } : {};
  await selectKernel(dir, (await addKernel({ dir, file, ...modules })).id);
}

/**
 * A VMSAN_DIR of its own that shares the prepared kernel, runtimes and disks by link; with
 * VMSAN_TEST_KERNEL it has that kernel instead.
 */
export async function freshDir(
  share = ["kernels", "runtimes", "initramfs", "probes"],
): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "vmsan-e2e-"));
  for (const name of share) {
    if (name === "kernels" && testKernel !== undefined) {
      await storeTestKernel(join(dir, name), resolve(testKernel));
      continue;
    }
    await mkdir(join(preparedDir, name), { recursive: true });
    await symlink(join(preparedDir, name), join(dir, name));
  }
  return dir;
}

/** Stop the daemon of a directory, remove its VMs, and the directory. */
export async function removeDir(dir: string): Promise<void> {
  // One that was never made: without VMSAN_DIR the command would be about the user's own.
  if (dir === "") return;
  const views = await vmsan(["list", "--json"], { dir });
  if (views.code === 0) {
    const { vms } = JSON.parse(views.stdout.toString()) as { vms: { id: string }[] };
    if (vms.length > 0) await vmsan(["rm", "-f", ...vms.map(({ id }) => id)], { dir });
  }
  await vmsan(["daemon", "stop"], { dir });
  await rm(dir, { recursive: true, force: true });
}

/** Processes of a directory that are neither its daemon nor the daemon's own helper. */
export function strayProcesses(dir: string): string[] {
  return processesOf(dir).filter((line) => !/daemon\/main|vmsan-nethelper/.test(line));
}

/** Processes whose command line or working directory names the text. */
export function processesOf(text: string): string[] {
  const found: string[] = [];
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    if (Number(pid) === process.pid) continue;
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
      const environment = readFileSync(`/proc/${pid}/environ`, "utf8");
      if (line.includes(text) || environment.includes(`VMSAN_DIR=${text}`))
        found.push(`${pid} ${line}`);
    } catch {
      // ENOENT, ESRCH: it ended while we looked.
    }
  }
  return found;
}

/** All paths below a directory, sorted, relative to it. */
export async function tree(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true });
  return entries.toSorted();
}
