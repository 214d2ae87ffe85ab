/**
 * The stand-in itself: it does as the jailed user what it is asked for, so that whatever a driver
 * leaves closed to that user is refused here as by the real one, in the same words.
 */
import { execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { FirecrackerApi } from "../../src/vmm/firecracker/api.ts";
import { standinHost, whyNoStandin } from "./support.ts";

const unusable = whyNoStandin();
if (unusable !== undefined) console.log(`skipped: Firecracker's stand-in: ${unusable}`);
const { dir, built } = standinHost();
const uid = 1_999_888_000;
const netns = `vmsan-standin-${process.pid}`;
const ip = (...args: string[]): void => {
  execFileSync("ip", ["-n", netns, ...args]);
};

let counter = 0;
let running: number[] = [];

/** A jail, filled by hand, with a VMM in it. */
async function jailed(fill: (root: string) => void = () => undefined, limits: string[] = []) {
  counter += 1;
  const id = `standin-${process.pid}-${counter}`;
  const base = join(dir, id);
  const root = join(base, "firecracker", id, "root");
  mkdirSync(join(root, "run"), { recursive: true });
  fill(root);
  const argv = ["--id", id, "--exec-file", join(built, "firecracker"), "--new-pid-ns"];
  const who = ["--uid", String(uid), "--gid", String(uid), "--chroot-base-dir", base];
  const own = ["--api-sock", "/run/api.sock", "--log-path", "/run/vmm.log"];
  const flags = [...argv, ...who, "--netns", `/run/netns/${netns}`, ...limits, "--", ...own];
  // Not a pipe, which the VMM would keep open.
  const log = openSync(join(base, "log"), "w");
  const jailer = spawnSync(join(built, "jailer"), flags, { stdio: ["ignore", log, log] });
  closeSync(log);
  expect(jailer.status, readFileSync(join(base, "log"), "utf8")).toBe(0);
  const pid = Number(readFileSync(join(root, "firecracker.pid"), "utf8"));
  running.push(pid);
  const socket = join(root, "run", "api.sock");
  const api = new FirecrackerApi(socket);
  // The socket is there a moment before it takes connections.
  const answers = async (): Promise<boolean> =>
    await api.call({ method: "GET", path: "/" }).then(
      () => true,
      () => false,
    );
  while (existsSync(`/proc/${pid}/exe`) && !(await answers())) await sleep(5);
  const put = async (path: string, body: object): Promise<string> =>
    await api.call({ method: "PUT", path, body }).then(
      () => "done",
      (error: unknown) => (error as { details: { body: string } }).details.body,
    );
  return { root, pid, put, api };
}

/** A file in a jail. */
const file = (root: string, name: string, mode: number, owner = 0): void => {
  writeFileSync(join(root, name), "\u007fELF");
  chmodSync(join(root, name), mode);
  chownSync(join(root, name), owner, owner);
};
const drive = (path_on_host: string, is_read_only: boolean) => ({
  drive_id: "a",
  is_root_device: false,
  path_on_host,
  is_read_only,
});
const card = { iface_id: "eth0", host_dev_name: "tap0", guest_mac: "02:00:00:00:00:01" };

describe.skipIf(unusable !== undefined)(
  "the stand-in does as its user what it is asked for",
  () => {
    beforeAll(() => {
      execFileSync("ip", ["netns", "add", netns]);
    });
    afterEach(() => {
      for (const pid of running) {
        // ESRCH: it has ended by itself.
        spawnSync("kill", ["-9", String(pid)]);
      }
      running = [];
    });
    afterAll(() => {
      execFileSync("ip", ["netns", "del", netns]);
    });

    test("attaches to a tap: not to another user's, a missing one, or one in use", async () => {
      const one = await jailed();
      const refused = (number: number): RegExp =>
        new RegExp(
          `Open tap device failed: Error while creating ifreq structure: .*\\(os error ${number}\\)\\. Invalid TUN/TAP Backend provided by tap0\\.`,
        );
      expect(await one.put("/network-interfaces/eth0", card)).toMatch(refused(1));
      ip("tuntap", "add", "dev", "tap0", "mode", "tap", "user", "0");
      expect(await one.put("/network-interfaces/eth0", card)).toMatch(refused(1));
      ip("link", "del", "tap0");
      ip("tuntap", "add", "dev", "tap0", "mode", "tap");
      expect(await one.put("/network-interfaces/eth0", card)).toBe("done");
      const two = await jailed();
      expect(await two.put("/network-interfaces/eth0", card)).toMatch(refused(16));
      ip("link", "del", "tap0");
    });

    test("opens disks for what they are used for, below its root", async () => {
      const { put } = await jailed((root) => {
        file(root, "closed", 0o600);
        file(root, "readable", 0o644);
        file(root, "own", 0o600, uid);
        file(dir, "outside", 0o666);
      });
      const denied = /Error manipulating the backing file: Permission denied \(os error 13\)/;
      expect(await put("/drives/a", drive("/closed", true))).toMatch(denied);
      expect(await put("/drives/a", drive("/readable", false))).toMatch(denied);
      expect(await put("/drives/a", drive("/readable", true))).toBe("done");
      expect(await put("/drives/a", drive("/own", false))).toBe("done");
      expect(await put("/drives/a", drive(join(dir, "outside"), true))).toMatch(/os error 2\)/);
    });

    test("opens kernel and initramfs, and refuses a command line that is too long", async () => {
      const { put } = await jailed((root) => {
        file(root, "closed", 0o600);
        file(root, "kernel", 0o644);
      });
      const boot = async (kernel: string, initrd: string, boot_args = "quiet"): Promise<string> =>
        await put("/boot-source", { kernel_image_path: kernel, initrd_path: initrd, boot_args });
      expect(await boot("/closed", "/kernel")).toContain(
        "The kernel file cannot be opened: Permission denied (os error 13)",
      );
      expect(await boot("/kernel", "/none")).toContain(
        "The initrd file cannot be opened due to invalid path or invalid permissions. No such file or directory (os error 2)",
      );
      expect(await boot("/kernel", "/kernel", "a".repeat(2048))).toContain("command line too long");
      expect(await boot("/kernel", "/kernel", "a".repeat(2047))).toBe("done");
    });

    test("writes metrics and log, and binds sockets, where its user may", async () => {
      const { root, put } = await jailed((made) => {
        file(made, "metrics", 0o644);
        mkdirSync(join(made, "shut"), { mode: 0o755 });
      });
      expect(statSync(join(root, "run", "vmm.log")).uid).toBe(uid);
      expect(await put("/metrics", { metrics_path: "/metrics" })).toContain("(os error 13)");
      chownSync(join(root, "metrics"), uid, uid);
      expect(await put("/metrics", { metrics_path: "/metrics" })).toBe("done");
      const vsock = (uds_path: string) => ({ guest_cid: 3, uds_path });
      expect(await put("/vsock", vsock("/shut/vsock"))).toContain("(os error 13)");
      expect(await put("/vsock", vsock("/run/vsock"))).toBe("done");
      expect(await put("/vsock", vsock("/run/vsock"))).toContain("(os error 98)");
      expect(statSync(join(root, "run", "vsock")).uid).toBe(uid);
    });

    test("ends when it may not write its log", async () => {
      const { pid, root } = await jailed((made) => {
        file(join(made, "run"), "vmm.log", 0o644);
      });
      await expect.poll(() => existsSync(`/proc/${pid}/exe`)).toBe(false);
      expect(existsSync(join(root, "run", "api.sock"))).toBe(false);
    });

    test("runs as its user, below its root, within its limits", async () => {
      const { pid, root } = await jailed();
      expect(readFileSync(`/proc/${pid}/status`, "utf8")).toMatch(
        new RegExp(`^Uid:\\s*${uid}`, "m"),
      );
      expect(statSync(`/proc/${pid}/root/`).ino).toBe(statSync(root).ino);
      const limits = (of: number): string => readFileSync(`/proc/${of}/limits`, "utf8");
      expect(limits(pid)).toMatch(/^Max open files\s+2048\s+2048/m);
      const flags = ["--resource-limit", "no-file=99", "--resource-limit", "fsize=4096"];
      const { pid: other, put } = await jailed(undefined, flags);
      expect(limits(other)).toMatch(/^Max open files\s+99\s+99/m);
      expect(limits(other)).toMatch(/^Max file size\s+4096\s+4096/m);
      expect(await put("/metrics", { metrics_path: "/run/metrics" })).toBe("done");
    });

    test("says what it was configured with, and what is wrong with a machine", async () => {
      const { put, api } = await jailed((root) => {
        file(root, "disk", 0o644);
      });
      const count = /Machine config error: The number of vCPUs must be greater than 0/;
      for (const vcpu_count of [0, 33]) {
        expect(await put("/machine-config", { vcpu_count, mem_size_mib: 128 })).toMatch(count);
      }
      await put("/machine-config", { vcpu_count: 2, mem_size_mib: 256 });
      await put("/drives/a", drive("/disk", true));
      await put("/entropy", {});
      const config = await api.call({ method: "GET", path: "/vm/config" });
      expect(config).toMatchObject({
        "machine-config": { vcpu_count: 2, mem_size_mib: 256 },
        "boot-source": { kernel_image_path: "" },
        drives: [drive("/disk", true)],
        entropy: {},
        vsock: null,
        "network-interfaces": [],
      });
      rmSync(join(dir, "outside"), { force: true });
    });
  },
);
