/**
 * Setup and a VM in boxes like unprivileged containers: no loop devices, /dev/kvm, /dev/net/tun,
 * mount rights, user namespaces or capabilities, a read-only root. What is called is traced: nothing
 * mounts, nothing asks for more rights. A file for each user that is in the box, so that they run at once.
 */
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { run } from "../../src/util/run.ts";
import { which } from "../../src/util/which.ts";

const root = resolve(import.meta.dirname, "../..");
const sandbox = join(import.meta.dirname, "sandbox.sh");

/** Why the boxes cannot be made here; undefined when they can. */
async function whyNot(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return "only root can make the boxes";
  for (const tool of ["unshare", "setpriv", "strace", "mmdebstrap"]) {
    if ((await which(tool)) === undefined) return `${tool} is not installed`;
  }
  const tried = await run("unshare", [
    "--mount",
    "--pid",
    "--fork",
    "mount",
    "-t",
    "tmpfs",
    "x",
    "/mnt",
  ]);
  return tried.code === 0 ? undefined : `no mount namespaces here: ${tried.stderr.trim()}`;
}

const reason = await whyNot();
if (reason !== undefined) console.warn(`sandbox tests are skipped: ${reason}`);

const vmsan = join(root, "bin/vmsan");
const watched =
  "execve,mount,umount2,fsopen,fsmount,move_mount,open_tree,pivot_root,mount_setattr,unshare,setns";

/** What runs a program with these calls of it, and of all that it starts, written to a file. */
const straced = (file: string, calls: string, ...more: string[]): string[] => [
  "strace",
  "-f",
  ...more,
  "-qq",
  "-e",
  "signal=none",
  "-e",
  `trace=${calls}`,
  "-o",
  file,
];

/** For whatever runs in a box: a kernel and a base image are made there, beside another file's. */
const LIMIT_MS = 600_000;

/** The story of one user's box. @param traced whether all that setup starts is watched, which takes longer */
export function boxedSetup(uid: number, traced: boolean): void {
  vi.setConfig({ testTimeout: LIMIT_MS });
  let dir: string;
  beforeAll(async () => {
    // Not below a directory that others cannot enter, and short: sockets have short names.
    dir = await mkdtemp(join(tmpdir(), "vmsan-box-"));
    await run("chmod", ["755", dir]);
  });
  afterAll(() => rm(dir, { recursive: true, force: true }));

  /** Run a command in the box. */
  async function inside(options: { offline?: boolean }, argv: readonly string[]) {
    const box = join(dir, String(uid));
    await mkdir(box, { recursive: true });
    const flags = options.offline === true ? ["--offline"] : [];
    const env = { ...process.env, HOME: join(box, "home"), VMSAN_DIR: join(box, "v") };
    return await run(sandbox, [String(uid), box, ...flags, "--", ...argv], {
      env,
      timeoutMs: LIMIT_MS,
    });
  }

  test.skipIf(reason !== undefined)("the box is as poor as it should be", async () => {
    const script = `grep CapEff /proc/self/status; ls /dev; mount -t tmpfs x /mnt; unshare -Ur true; touch /etc/x`;
    const { stdout, stderr } = await inside({}, ["sh", "-c", script]);
    expect(stdout).toMatch(/CapEff:\s+0{16}/);
    expect(stdout).not.toMatch(/kvm|loop|net/);
    expect(stderr).toMatch(/mount: .*(permission denied|must be superuser)/);
    expect(stderr).toMatch(/unshare failed: Operation not permitted/);
    expect(stderr).toMatch(/Read-only file system/);
  });

  test.skipIf(reason !== undefined)(
    "setup makes everything, mounting nothing and asking nobody",
    async () => {
      const trace = join(dir, String(uid), "trace");
      const strace = straced(trace, watched, "--seccomp-bpf");
      const setup = await inside({}, [...(traced ? strace : []), vmsan, "setup", "--json"]);
      expect(setup.code, setup.stdout + setup.stderr).toBe(0);
      expect(JSON.parse(setup.stdout)).toMatchObject({ ok: true });
      if (!traced) return;
      const calls = await readFile(trace, "utf8");
      const programs = [...calls.matchAll(/ execve\("([^"]+)"/g)].map((match) => match[1] ?? "");
      expect(programs.length).toBeGreaterThan(100);
      const forbidden =
        /\/(mount|umount|losetup|sudo|su|doas|pkexec|docker|podman|newuidmap|newgidmap)$/;
      expect(programs.filter((path) => forbidden.test(path))).toEqual([]);
      const others = calls
        .split("\n")
        .filter((line) => /^\d+ +\w+\(/.test(line) && !line.includes("execve("));
      expect(others).toEqual([]);
    },
  );

  test.skipIf(reason !== undefined)(
    "the second time needs no network, starts no other program and is quick",
    async () => {
      const trace = join(dir, String(uid), "trace2");
      const strace = straced(trace, "execve");
      const again = await inside({ offline: true }, [...strace, vmsan, "setup", "--json"]);
      const { ok, items } = JSON.parse(again.stdout) as {
        ok: boolean;
        items: { status: string; durationMs: number }[];
      };
      expect(ok).toBe(true);
      expect(items.filter(({ status }) => status === "made" || status === "failed")).toEqual([]);
      const programs = [...(await readFile(trace, "utf8")).matchAll(/execve\("([^"]+)".* = 0$/gm)];
      expect(programs.map((match) => match[1]?.split("/").at(-1))).toEqual(["vmsan", "node"]);
    },
  );

  test.skipIf(reason !== undefined)("a VM of that base boots and runs a command", async () => {
    const script = `${vmsan} run base -- sh -c 'id -un; uname -s; exit 7' </dev/null; echo "status $?"; ${vmsan} list --json; ${vmsan} daemon stop`;
    const result = await inside({}, ["sh", "-c", script]);
    expect(result.stdout, result.stderr).toContain("ubuntu\nLinux\nstatus 7\n");
    expect(result.stdout).toContain('"count":0');
  });
}
