/** In real guests: a volume that several VMs write to at the same time, its content, and every way in which it comes about. */
import {
  link,
  mkdir,
  readFile,
  readdir,
  stat,
  symlink,
  writeFile,
  chmod,
  chown,
} from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { CreateOptions } from "../../../src/client/options.ts";
import type { Vm } from "../../../src/client/vm.ts";
import { layoutOf } from "../../../src/util/paths.ts";
import { findLeftovers } from "../../../src/vmm/leftovers.ts";
import { buildGo } from "../../firecracker/support.ts";
import { installation, temporary } from "../../fixtures/ladder.ts";
import { busyboxLayer, tool, umociImage } from "../images.ts";
import { root } from "../support.ts";

const made = installation("kernel");
const work = temporary();
const isRoot = process.getuid?.() === 0;
let image = "";
let one: Vm;
let two: Vm;

const options = (mounts: NonNullable<CreateOptions["mounts"]>): CreateOptions => ({
  image,
  memory: 192,
  driver: "qemu",
  networkPolicy: "none",
  mounts,
});

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
    await chmod(seed, 0o2770);
    buildGo(join(root, "test/shares"), ".", join(rootfs, "bin/probe"));
  };
  image = await umociImage(join(work.path, "image"), [busyboxLayer, content]);
  await made.vmsan.volumes.create("data", { shared: true });
  // At the same moment: one of both fills it.
  const mounts = ["data:/seed"];
  [one, two] = await Promise.all([
    made.vmsan.create({ ...options(mounts), name: "one" }),
    made.vmsan.create({ ...options(mounts), name: "two", user: "1000" }),
  ]);
}, 600_000);
afterAll(async () => {
  for (const { id } of await made.vmsan.list()) await made.vmsan.remove(id, { force: true });
});

/** Standard output of a command in a guest, as root there; fails when that does. */
async function run(vm: Vm, ...argv: string[]): Promise<string> {
  const { stdout, stderr, exitCode } = await vm.exec(argv, { user: "0" });
  expect(`${stderr.toString()}${exitCode}`).toBe("0");
  return stdout.toString();
}
const sh = (vm: Vm, script: string): Promise<string> => run(vm, "busybox", "sh", "-c", script);
const both = async (body: (vm: Vm) => Promise<unknown>): Promise<void> => {
  await Promise.all([one, two].map(body));
};
const held = (name: string): string => join(layoutOf(made.dir).volumes, name, "data");

const LIST =
  "busybox stat -c '%n %F %a %u:%g %h' /seed /seed/sub /seed/sub/tool /seed/again /seed/link";

test("an empty one is filled from the image, once, and both have it", async () => {
  const owner = (numbers: string): string => (isRoot ? numbers : "0:0");
  const expected = [
    `/seed directory 2770 ${owner("1000:1001")} 3`,
    `/seed/sub directory 755 ${owner("0:0")} 2`,
    `/seed/sub/tool regular file 6755 ${owner("7:8")} 2`,
    `/seed/again regular file 6755 ${owner("7:8")} 2`,
    `/seed/link symbolic link 777 ${owner("0:0")} 1`,
    "",
  ].join("\n");
  if (isRoot) await both(async (vm) => expect(await sh(vm, LIST)).toBe(expected));
  expect(await made.vmsan.volumes.get("data")).toMatchObject({
    shared: true,
    state: "written",
    sizeBytes: 10 * 2 ** 30,
    usedBy: ["one", "two"],
  });
  expect((await readdir(join(layoutOf(made.dir).volumes, "data"))).toSorted()).toEqual([
    "data",
    "volume.json",
  ]);
  for (const mount of [one.view.mounts[0], two.view.mounts[0]]) {
    expect(mount).toMatchObject({ kind: "volume", name: "data", shared: true });
  }
});

test("what one writes the other reads next: files, renames over open ones, removals, new names", async () => {
  for (const [round, [from, to]] of [
    [one, two],
    [two, one],
    [one, two],
  ].entries()) {
    if (from === undefined || to === undefined) continue;
    await sh(from, `echo ${round} >/seed/file`);
    expect(await sh(to, "busybox cat /seed/file")).toBe(`${round}\n`);
    await sh(from, `echo renamed ${round} >/seed/.new && busybox mv /seed/.new /seed/file`);
    expect(await sh(to, "busybox cat /seed/file")).toBe(`renamed ${round}\n`);
    await sh(from, "busybox rm /seed/file");
    expect(await sh(to, "[ ! -e /seed/file ] && echo none")).toBe("none\n");
  }
});

test("each addition of either counts, and each line that is appended is there", async () => {
  await both(async (vm) => await run(vm, "probe", "count", "/seed", "60"));
  expect((await readFile(join(held("data"), "counter"), "utf8")).trim()).toBe("120");
  await both(
    async (vm) => await run(vm, "probe", "append", "/seed/log", vm.view.name ?? "", "100"),
  );
  const lines = (await readFile(join(held("data"), "log"), "utf8")).trim().split("\n");
  const wanted = ["one", "two"].flatMap((who) =>
    Array.from({ length: 100 }, (_, number) => `${who} ${number}`),
  );
  expect(lines.toSorted()).toEqual(wanted.toSorted());
  await both(async (vm) => expect((await sh(vm, "busybox wc -l </seed/log")).trim()).toBe("200"));
}, 600_000);

test("a lock of one is one for the other, who gets it once it is free", async () => {
  const holder = one.spawn(["probe", "lock", "/seed/locked"], { user: "0" });
  const said: string[] = [];
  holder.stdout.on("data", (text: Buffer) => said.push(text.toString()));
  await expect.poll(() => said.join(""), { timeout: 60_000 }).toBe("ok\n");
  expect(await sh(two, "probe lock /seed/locked </dev/null")).toBe(
    "E11(resource temporarily unavailable)\n",
  );
  const waiting = run(two, "probe", "count", "/seed", "1", "/seed/locked");
  // It is asked for again and again meanwhile; a VM with a program that waits falls asleep all the same.
  await two.suspend();
  await two.resume();
  holder.stdin.end();
  expect(await waiting).toBe("had it\n");
  await both(async (vm) => await run(vm, "probe", "count", "/seed", "40", "/seed/locked"));
  expect((await readFile(join(held("data"), "counter"), "utf8")).trim()).toBe("201");
}, 600_000);

test("pages that are mapped follow, and watchers see what the other one does", async () => {
  const seen = run(one, "probe", "map", "/seed/pages", "-", "from two");
  await sh(one, "probe watch /seed 280000 >/tmp/watched 2>&1 & echo $! >/tmp/watcher");
  await expect
    .poll(() => sh(one, "busybox cat /tmp/watched"), { timeout: 60_000 })
    .toMatch(/ready/);
  expect(await run(two, "probe", "map", "/seed/pages", "from two", "from two")).toBe(
    "seen from two\n",
  );
  await sh(two, "echo x >/seed/sub/new");
  await expect
    .poll(() => sh(one, "busybox cat /tmp/watched"), { timeout: 60_000 })
    .toMatch(/create sub\/new/);
  await sh(one, "kill $(busybox cat /tmp/watcher)");
  expect(await seen).toBe("seen from two\n");
}, 300_000);

test("owners are numbers that all have in common, whatever a VM's user is", async () => {
  if (!isRoot) return;
  await sh(
    two,
    "echo x >/seed/owned && busybox chown 33:44 /seed/owned && busybox chmod 4640 /seed/owned",
  );
  expect(await sh(one, "busybox stat -c '%u:%g %a' /seed/owned")).toBe("33:44 4640\n");
  const { uid, gid } = await stat(join(held("data"), "owned"));
  expect([uid, gid]).toEqual([33, 44]);
  expect((await two.exec(["busybox", "cat", "/seed/owned"])).exitCode).toBe(1);
  const device = await two.exec(["busybox", "mknod", "/seed/disk", "b", "8", "0"], { user: "0" });
  expect(device.stderr.toString()).toMatch(/Operation not permitted/);
  expect(await sh(one, "busybox grep ' /seed ' /proc/mounts")).toMatch(/nosuid,nodev/);
});

test("one that mounts it read-only, or a part of it, gets that and no more", async () => {
  const three = await made.vmsan.create(
    options([
      { kind: "volume", name: "data", target: "/in", part: "sub", readonly: true, nocopy: false },
    ]),
  );
  expect((await sh(three, "busybox ls /in")).split("\n")).toContain("tool");
  const tried =
    "echo x >/in/tool; busybox rm /in/tool; busybox mkdir /in/new; busybox mount -o remount,rw /in && echo x >/in/tool; busybox cat /in/../counter; busybox true";
  expect(await sh(three, `exec 2>/dev/null; ${tried}`)).toBe("");
  expect(await readFile(join(held("data"), "sub/tool"), "utf8")).toBe("#!/bin/sh\n");
  await three.remove();
  const links = options(["data:/seed"]);
  for (const part of ["link", "none"]) {
    const mounts = [
      {
        kind: "volume",
        name: "data",
        target: "/in",
        part,
        readonly: false,
        nocopy: false,
      } as const,
    ];
    await expect(made.vmsan.create({ ...links, mounts })).rejects.toMatchObject({
      code: "ERR_VOLUME_PART",
    });
  }
}, 300_000);

test("its file server killed, the VM goes on with it; asleep and forked, too; none of it goes back with a VM", async () => {
  const [server] = await findLeftovers(join(layoutOf(made.dir).vms, one.id), "shares.json");
  process.kill(server?.pid ?? 0, "SIGKILL");
  await expect
    .poll(async () => (await one.exec(["busybox", "cat", "/seed/sub/tool"])).stdout.toString(), {
      timeout: 60_000,
    })
    .toBe("#!/bin/sh\n");
  await sh(one, "echo before >/seed/state");
  const snapshot = await made.vmsan.snapshots.create(one.id);
  await sh(two, "echo after >/seed/state");
  await one.restore(snapshot.id);
  expect(await sh(one, "busybox cat /seed/state")).toBe("after\n");
  const [fork] = await made.vmsan.fork(one.id, { name: "fork" });
  if (fork === undefined) throw new Error("no fork");
  await sh(fork, "echo of the fork >/seed/state");
  await both(async (vm) => expect(await sh(vm, "busybox cat /seed/state")).toBe("of the fork\n"));
  await fork.remove();
  await one.suspend();
  await expect(made.vmsan.volumes.remove("data")).rejects.toMatchObject({
    code: "ERR_VOLUME_IN_USE",
  });
  await sh(two, "echo while it slept >/seed/state");
  await one.resume();
  expect(await sh(one, "busybox cat /seed/state")).toBe("while it slept\n");
  await expect(
    made.vmsan.snapshots.export(snapshot.id, join(work.path, "no")),
  ).rejects.toMatchObject({
    code: "ERR_SNAPSHOT_SHARES",
  });
  await made.vmsan.snapshots.remove(snapshot.id);
}, 600_000);

test("it holds no more than its size, which the guest sees; what is removed is there again", async () => {
  await made.vmsan.volumes.create("small", { shared: true, size: 1 });
  const vm = await made.vmsan.create(options(["small:/data"]));
  const sizes = async (): Promise<number[]> =>
    (await sh(vm, "busybox df -k /data | busybox tail -n 1")).split(/\s+/).slice(1, 4).map(Number);
  const [size = 0, , free = 0] = await sizes();
  expect(size).toBe(2 ** 20);
  expect(free).toBeGreaterThan(2 ** 20 - 100);
  await sh(vm, "busybox fallocate -l 900m /data/large");
  const refused = "busybox fallocate -l 300m /data/more 2>&1; busybox true";
  expect(await sh(vm, refused)).toContain("No space left on device");
  await sh(vm, "busybox dd if=/dev/zero of=/data/large bs=1M count=2 conv=notrunc 2>/dev/null");
  const filled = "busybox dd if=/dev/zero of=/data/more bs=1M count=200 2>&1; busybox true";
  expect(await sh(vm, filled)).toContain("No space left on device");
  expect((await made.vmsan.volumes.get("small")).storedBytes).toBeLessThanOrEqual(2 ** 30);
  await sh(vm, "busybox rm /data/large && busybox fallocate -l 300m /data/more");
  // A VM that starts once it is larger may have more in it.
  await vm.stop();
  await made.vmsan.volumes.grow("small", 2);
  await vm.start();
  await sh(vm, "busybox fallocate -l 1500m /data/large");
  await vm.remove();
  await made.vmsan.volumes.remove("small");
}, 600_000);

test("a volume with a disk becomes one with all that is in it, once nobody uses it", async () => {
  const writer = await made.vmsan.create(options(["disk:/seed"]));
  await sh(writer, "echo mine >/seed/mine && busybox chown 5:6 /seed/mine && busybox sync");
  await expect(made.vmsan.volumes.share("disk")).rejects.toMatchObject({
    code: "ERR_VOLUME_IN_USE",
  });
  await expect(made.vmsan.create(options(["disk:/seed"]))).rejects.toMatchObject({
    code: "ERR_VOLUME_IN_USE",
    fix: expect.stringMatching(/vmsan volume share disk/) as string,
  });
  // Killed while it writes: its journal is played back first.
  const { pid } = await writer.refresh();
  process.kill(pid ?? 0, "SIGKILL");
  await expect
    .poll(async () => (await writer.refresh()).status, { timeout: 60_000 })
    .toBe("stopped");
  if (!isRoot) {
    const refused = { code: "ERR_VOLUME_OWNERS" };
    await expect(made.vmsan.volumes.share("disk")).rejects.toMatchObject(refused);
    return;
  }
  expect(await made.vmsan.volumes.share("disk")).toMatchObject({ shared: true, state: "free" });
  await writer.start();
  const other = await made.vmsan.create(options(["disk:/other"]));
  expect(await sh(writer, "busybox cat /seed/mine")).toBe("mine\n");
  expect(await sh(other, "busybox stat -c %u:%g /other/mine; busybox cat /other/mine")).toBe(
    "5:6\nmine\n",
  );
  await sh(other, "echo both >/other/mine");
  expect(await sh(writer, "busybox cat /seed/mine")).toBe("both\n");
  // It travels as a file, and goes when nobody mounts it.
  const file = join(work.path, "disk.tar");
  await expect(made.vmsan.volumes.export("disk", file)).rejects.toMatchObject({
    code: "ERR_VOLUME_IN_USE",
  });
  for (const vm of [writer, other]) await vm.remove();
  await made.vmsan.volumes.export("disk", file);
  await made.vmsan.volumes.import("again", file);
  expect(await readFile(join(held("again"), "mine"), "utf8")).toBe("both\n");
  const { volumes } = await made.vmsan.volumes.prune();
  expect(volumes.toSorted()).toEqual(["again", "disk"]);
}, 600_000);
