/** In a real guest: volumes, places on the VM's own disk, arguments and settings of its kernel. */
import { execFileSync } from "node:child_process";
import { chmod, chown, link, mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import type { CreateOptions } from "../../../src/client/options.ts";
import { booted, installation, temporary } from "../../fixtures/ladder.ts";
import { busyboxLayer, tool, umociImage } from "../images.ts";

const made = installation("kernel");
const work = temporary();
let image = "";
beforeAll(async () => {
  const content = async (rootfs: string): Promise<void> => {
    const seed = join(rootfs, "seed");
    await mkdir(join(seed, "sub"), { recursive: true });
    await writeFile(join(seed, "sub/tool"), "#!/bin/sh\n");
    await link(join(seed, "sub/tool"), join(seed, "again"));
    await symlink("/nowhere", join(seed, "link"));
    await chown(join(seed, "sub/tool"), 7, 8);
    await chmod(join(seed, "sub/tool"), 0o6755);
    await tool("setfattr", "-n", "user.colour", "-v", "red", join(seed, "again"));
    await chown(seed, 1000, 1001);
    await chmod(seed, 0o2750);
    await mkdir(join(rootfs, "keep"));
    await writeFile(join(rootfs, "keep/file"), "of the image\n");
    await mkdir(join(rootfs, "run"));
    await mkdir(join(rootfs, "var"));
    await symlink("../run", join(rootfs, "var/run"));
  };
  await mkdir(join(work.path, "shared"));
  await writeFile(join(work.path, "shared/one"), "");
  image = await umociImage(join(work.path, "image"), [busyboxLayer, content], {
    volumes: ["/keep", "/seed", "/var/run/late"],
  });
});

const options = (): CreateOptions => ({
  image,
  memory: 192,
  networkPolicy: "none",
  mounts: [
    "seed:/seed",
    "/own/place",
    { kind: "volume", name: "plain", target: "/plain", readonly: false, nocopy: true },
    `${work.path}/shared:/shared/all`,
    `${work.path}/shared/one:/shared/just/one:ro`,
  ],
  kernelArgs: ["loglevel=6", "vmsantest.word=1"],
  sysctls: ["kernel.pid_max=40000", "vm.swappiness=7"],
});
const one = booted(made, options);

/** Standard output of a command in the guest, which succeeds. */
async function sh(script: string, vm = one.vm): Promise<string> {
  const { stdout, stderr, exitCode } = await vm.exec(["busybox", "sh", "-c", script]);
  expect(`${stderr.toString()}${exitCode}`).toBe("0");
  return stdout.toString();
}

/** The judge of file systems: silent for a clean one. */
function fsck(name: string): void {
  const disk = join(made.dir, "volumes", name, "volume.ext4");
  execFileSync("/sbin/e2fsck", ["-fn", disk], { stdio: ["ignore", "pipe", "pipe"] });
}

const LIST =
  "busybox stat -c '%n %F %a %u:%g %h %s' /seed /seed/sub /seed/sub/tool /seed/again /seed/link";

test("a new volume is filled from the image: owners, modes, links; its file systems are the VM's own", async () => {
  expect(await sh(LIST)).toBe(
    [
      "/seed directory 2750 1000:1001 3 4096",
      "/seed/sub directory 755 0:0 2 4096",
      "/seed/sub/tool regular file 6755 7:8 2 10",
      "/seed/again regular file 6755 7:8 2 10",
      "/seed/link symbolic link 777 0:0 1 8",
      "",
    ].join("\n"),
  );
  expect(await sh("busybox ls -A /own/place /plain; cat /keep/file")).toBe(
    "/own/place:\n\n/plain:\nof the image\n",
  );
  const mounts = await sh("busybox cat /proc/mounts");
  for (const place of ["/seed", "/plain", "/own/place", "/keep", "/run/late"]) {
    expect(mounts).toMatch(new RegExp(`^/dev/vd\\w ${place} ext4 rw,`, "m"));
  }
  // The image's own volume gives way to the user's, and nothing else is in sight.
  expect(mounts.match(/ \/seed /g)).toHaveLength(1);
  expect(await sh("busybox ls -A /dev")).not.toMatch(/vmsan-volume/);
  const overlay =
    "mkdir -p /keep/o/l /keep/o/u /keep/o/w /keep/o/m && busybox mount -t overlay none -o lowerdir=/keep/o/l,upperdir=/keep/o/u,workdir=/keep/o/w /keep/o/m";
  expect(await sh(`alias mkdir='busybox mkdir'; ${overlay} && echo stands`)).toBe("stands\n");
});

test("what the agent made to mount something there is no change of the image; what is put there is", async () => {
  expect(await one.vm.diff()).toEqual([]);
  await sh("busybox umount -l /shared/all; echo x >/shared/all/x; busybox mkdir /made");
  const added = ["/made", "/shared", "/shared/all", "/shared/all/x"];
  expect((await one.vm.diff()).map(({ path, kind }) => ({ path, kind }))).toEqual(
    added.map((path) => ({ path, kind: "added" })),
  );
});

test("arguments and settings are the kernel's; what it does not know fails with a code", async () => {
  expect(await sh("cat /proc/cmdline")).toMatch(/ loglevel=6 vmsantest\.word=1$/m);
  expect(await sh("cat /proc/sys/kernel/pid_max /proc/sys/vm/swappiness")).toBe("40000\n7\n");
  expect(one.vm.view).toMatchObject({
    kernelArgs: ["loglevel=6", "vmsantest.word=1"],
    sysctls: { "kernel/pid_max": "40000", "vm/swappiness": "7" },
  });
});

test("the disk grows while the VM runs; memory and processors do not, and say so", async () => {
  const big = "busybox df -P -k /own/place | busybox awk 'NR > 1 { print ($2 > 11500000) }'";
  expect(await sh(big)).toBe("0\n");
  await one.vm.update({ disk: 12 });
  expect(await sh(big)).toBe("1\n");
  expect(one.vm.view.diskSizeBytes).toBe(12 * 2 ** 30);
  await made.vmsan.volumes.grow("plain", 12);
  expect(await sh(big.replace("/own/place", "/plain"))).toBe("1\n");
  await expect(made.vmsan.volumes.grow("plain", 11)).rejects.toMatchObject({
    code: "ERR_VOLUME_SIZE",
  });
  await expect(one.vm.update({ memory: 256 })).rejects.toMatchObject({
    code: "ERR_VM_NOT_STOPPED",
  });
  await expect(one.vm.update({ disk: 11 })).rejects.toMatchObject({
    code: "ERR_VALIDATION_DISK_SIZE",
  });
  await expect(one.vm.update({})).rejects.toMatchObject({ code: "ERR_VALIDATION_FLAGS" });
});

test("a volume that is held is refused to others, and so is what no place in the image can be", async () => {
  const before = (await made.vmsan.list()).map(({ id }) => id);
  const make = (mounts: string[]) => made.vmsan.create({ ...options(), mounts });
  for (const word of ["seed:/mnt", "seed:/mnt:ro"]) {
    await expect(make([word])).rejects.toMatchObject({ code: "ERR_VOLUME_IN_USE" });
  }
  for (const word of ["/keep/file", "/bin/sh/x"]) {
    await expect(make([word])).rejects.toMatchObject({ code: "ERR_MOUNT_TARGET" });
  }
  expect((await made.vmsan.list()).map(({ id }) => id)).toEqual(before);
  const { volumes } = made.vmsan;
  expect((await volumes.list()).map(({ name, state }) => `${name} ${state}`)).toEqual([
    "plain written",
    "seed written",
  ]);
  await expect(volumes.remove("seed")).rejects.toMatchObject({ code: "ERR_VOLUME_IN_USE" });
});

test("a VM killed while it writes leaves a volume whose journal makes it whole", async () => {
  await sh(
    "echo first >/seed/first; echo mine >/own/place/file; echo more >>/keep/file; busybox sync",
  );
  one.vm.spawn(
    [
      "busybox",
      "sh",
      "-c",
      "i=0; while :; do i=$((i+1)); busybox dd if=/dev/urandom of=/seed/f$i bs=16k count=8 2>/dev/null; busybox mv /seed/f$i /seed/g$i; done",
    ],
    { detach: true },
  );
  await expect
    .poll(() => sh("busybox ls /seed | busybox wc -l"), { timeout: 60_000 })
    .toMatch(/^[2-9]\d+\n/);
  await sh("busybox sync");
  const { pid } = await one.vm.refresh();
  process.kill(pid ?? 0, "SIGKILL");
  await expect
    .poll(async () => (await one.vm.refresh()).status, { timeout: 60_000 })
    .toBe("stopped");
  await expect(made.vmsan.create({ ...options(), mounts: ["seed:/mnt:ro"] })).rejects.toMatchObject(
    { code: "ERR_VOLUME_RECOVERY" },
  );
  await one.vm.update({ memory: 256, vcpus: 2 });
  await one.vm.start();
  expect(
    await sh("busybox nproc; busybox awk '/MemTotal/ { print ($2 > 200000) }' /proc/meminfo"),
  ).toBe("2\n1\n");
  expect(await sh("cat /seed/first /own/place/file /keep/file")).toBe(
    "first\nmine\nof the image\nmore\n",
  );
  expect(await sh(LIST)).toMatch(/^\/seed directory 2750 1000:1001 3 /);
  expect(await sh("cat /proc/sys/vm/swappiness; busybox ls -A /plain")).toBe("7\n");
  await one.vm.stop();
  fsck("seed");
  fsck("plain");
});

test("volumes outlive their VM, are read by others, grow, and travel as files", async () => {
  const { volumes } = made.vmsan;
  await one.vm.remove();
  await volumes.grow("seed", 12);
  fsck("seed");
  const archive = join(work.path, "seed.tar");
  await volumes.export("seed", archive);
  await volumes.import("copy", archive);
  const two = await made.vmsan.create({ ...options(), mounts: ["seed:/mnt:ro", "copy:/copy"] });
  const same =
    "cd $1 && busybox find . -type f -exec busybox sha256sum {} + | busybox sort | busybox sha256sum";
  const sum = (place: string): Promise<string> => sh(`set -- ${place}; ${same}`, two);
  expect(await sum("/mnt")).toBe(await sum("/copy"));
  expect(
    await sh(
      "cat /mnt/first; busybox df -P -k /mnt | busybox awk 'NR > 1 { print ($2 > 11500000) }'",
      two,
    ),
  ).toBe("first\n1\n");
  expect((await two.exec(["busybox", "touch", "/mnt/no"])).stderr.toString()).toMatch(/Read-only/);
  const raw =
    "busybox dd if=/dev/zero of=$(busybox awk '$2 == \"/mnt\" { print $1 }' /proc/mounts) bs=4k count=1";
  expect((await two.exec(["busybox", "sh", "-c", raw])).exitCode).not.toBe(0);
  const [fork] = await made.vmsan.fork(two.id);
  if (fork === undefined) throw new Error("no fork");
  expect(await sum("/mnt")).toBe(await sh(`set -- /copy; ${same}`, fork));
  await sh("echo of the fork >/copy/only", fork);
  await sh("echo of its source >/copy/only", two);
  await fork.stop();
  await expect(two.restore((await made.vmsan.snapshots.create(two.id)).id)).rejects.toMatchObject({
    code: "ERR_SNAPSHOT_VOLUME",
  });
  // What was written last is there, although the VM goes at once, and readers may have it.
  await sh("echo late >/copy/late", two);
  await two.remove();
  const disk = join(made.dir, "volumes/copy/volume.ext4");
  const asked = (request: string): string =>
    execFileSync("/sbin/debugfs", ["-R", request, disk], { encoding: "utf8", stdio: "pipe" });
  expect(asked("cat /data/late")).toBe("late\n");
  expect(asked("features")).not.toContain("needs_recovery");
  await fork.start();
  expect(await sh("cat /copy/only", fork)).toBe("of the fork\n");
  expect((await volumes.get("copy")).usedBy).toEqual([]);
  await fork.remove();
  for (const name of ["seed", "copy"]) fsck(name);
  expect((await volumes.prune()).volumes).toEqual(["copy", "plain", "seed"]);
});
