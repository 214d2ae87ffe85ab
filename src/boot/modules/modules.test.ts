import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as zlib from "node:zlib";
import { afterAll, expect, test } from "vitest";
import { addKernel, ensureModulesDisk, listKernels } from "../kernel.ts";
import { elf, moduleFile } from "../testing.ts";
import { lookupFiles, type ModuleFacts } from "./depmod.ts";
import { writeModulesDisk } from "./disk.ts";
import { encodeIndex } from "./trie.ts";

const dir = mkdtempSync(join(tmpdir(), "vmsan-modules-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Values of a key in kmod's binary index, walked as libkmod does. */
function lookUp(index: Buffer, key: string): string[] {
  let node = index.readUInt32BE(8);
  let rest = key;
  for (;;) {
    let at = node % 2 ** 28;
    const text = (): string => {
      const end = index.indexOf(0, at);
      const value = index.toString("latin1", at, end);
      at = end + 1;
      return value;
    };
    if (node >= 2 ** 31) {
      const prefix = text();
      if (!rest.startsWith(prefix)) return [];
      rest = rest.slice(prefix.length);
    }
    let next = 0;
    if (Math.floor(node / 2 ** 29) % 2 === 1) {
      const [first = 0, last = 0] = index.subarray(at, at + 2);
      at += 2;
      const code = rest.charCodeAt(0);
      if (code >= first && code <= last) next = index.readUInt32BE(at + 4 * (code - first));
      at += 4 * (last - first + 1);
    }
    if (rest === "") {
      if (Math.floor(node / 2 ** 30) % 2 === 0) return [];
      const count = index.readUInt32BE(at);
      at += 4;
      return Array.from({ length: count }, () => {
        at += 4;
        return text();
      });
    }
    if (next === 0) return [];
    node = next;
    rest = rest.slice(1);
  }
}

/** A module's facts. */
function facts(name: string, depends: string[] = [], aliases: string[] = []): ModuleFacts {
  return { name, path: `kernel/${name}.ko`, depends, aliases, softdeps: [] };
}

test("a binary index has every key, the values by priority, and nothing else", () => {
  const keys = ["a", "ab", "abc", "abd", "b", "", "fs_fuse", "fs_ext4"];
  const entries = keys.flatMap((key) => [
    { key, value: `${key}-late`, priority: 9 },
    { key, value: `${key}-early`, priority: 1 },
  ]);
  const index = encodeIndex([...entries, { key: "naïve", value: "x", priority: 0 }]);
  expect(index.toString("hex", 0, 8)).toBe("b007f45700020001");
  for (const key of keys) expect(lookUp(index, key)).toEqual([`${key}-early`, `${key}-late`]);
  for (const key of ["abe", "abcd", "fs_", "c", "naïve"]) expect(lookUp(index, key)).toEqual([]);
});

test("lookup files: needs all the way down, aliases, device nodes", () => {
  const files = lookupFiles(
    [
      facts("top", ["mid", "base", "missing"], ["x-[a-z]-*"]),
      facts("mid", ["base"]),
      facts("base", ["mid"]),
      facts("tun", [], ["char-major-10-200", "devname:net/tun"]),
    ],
    { names: ["ext4"], aliases: [["fs-ext4", "ext4"]] },
  );
  const text = (name: string): string => files.get(name)?.toString() ?? "";
  expect(text("modules.dep")).toContain("kernel/top.ko: kernel/mid.ko kernel/base.ko\n");
  expect(text("modules.alias")).toContain("alias x-[a-z]-* top\n");
  expect(text("modules.devname")).toContain("tun net/tun c10:200\n");
  const binary = (name: string, key: string): string[] =>
    lookUp(files.get(name) ?? Buffer.alloc(0), key);
  expect(binary("modules.alias.bin", "x_[a-z]_*")).toEqual(["top"]);
  expect(binary("modules.builtin.alias.bin", "fs_ext4")).toEqual(["ext4"]);
  expect(binary("modules.builtin.bin", "ext4")).toEqual([""]);
});

/** A /lib/modules/VERSION that a guest can boot with, packed and not. */
function tree(name: string): string {
  const root = join(dir, name);
  mkdirSync(join(root, "kernel/drivers"), { recursive: true });
  const modules = ["virtio_mmio", "virtio_blk", "virtio_console", "overlay"];
  for (const each of modules) {
    writeFileSync(join(root, `kernel/drivers/${each}.ko`), moduleFile(""));
  }
  writeFileSync(
    join(root, "kernel/drivers/x-y.ko.gz"),
    zlib.gzipSync(moduleFile("overlay,virtio-blk")),
  );
  writeFileSync(join(root, "modules.builtin"), "kernel/fs/ext4/ext4.ko\n");
  writeFileSync(join(root, "modules.builtin.modinfo"), "ext4.alias=fs-ext4\0ext4.license=GPL\0");
  return root;
}

test("the disk: clean, the same each time, modules unpacked", async () => {
  const root = tree("tree");
  const images = [join(dir, "1.ext4"), join(dir, "2.ext4")];
  for (const image of images) await writeModulesDisk(root, "6.1-test", image);
  const [one, two] = images.map((image) => readFileSync(image));
  expect(one?.equals(two ?? Buffer.alloc(0))).toBe(true);
  const check = spawnSync("e2fsck", ["-fn", images[0] ?? ""], { encoding: "utf8" });
  expect([check.status, check.stdout]).toEqual([0, expect.not.stringMatching(/fix|wrong/i)]);
  const dump = (path: string): Buffer =>
    spawnSync("debugfs", ["-R", `cat /6.1-test/${path}`, images[0] ?? ""]).stdout;
  expect(dump("kernel/drivers/x-y.ko").equals(moduleFile("overlay,virtio-blk"))).toBe(true);
  expect(dump("modules.dep").toString()).toContain(
    "kernel/drivers/x-y.ko: kernel/drivers/virtio_blk.ko kernel/drivers/overlay.ko\n",
  );
});

test("a kernel added with modules has their disk; a damaged one is not used, the kernel is", async () => {
  const store = join(dir, "store");
  const file = join(dir, "vmlinux");
  writeFileSync(file, elf());
  const kernel = await addKernel({ dir: store, file, modulesDir: tree("given") });
  expect(kernel.modulesDisk).toBe(join(store, kernel.id, "modules.ext4"));
  // Another installation's comes with it.
  const taken = await addKernel({ dir: join(dir, "other"), file: kernel.vmlinux });
  const bytes = readFileSync(taken.modulesDisk ?? "");
  expect(bytes.equals(readFileSync(kernel.modulesDisk ?? ""))).toBe(true);
  writeFileSync(kernel.modulesDisk ?? "", "cut off");
  const [left] = await listKernels(store);
  expect([left?.id, left?.modulesDisk]).toEqual([kernel.id, undefined]);
  // Its modules are nowhere on this machine: guests boot without.
  if (left !== undefined) expect(await ensureModulesDisk(left, { dir: store })).toEqual(left);
  const again = await addKernel({ dir: store, file, modulesDir: tree("again") });
  expect(readFileSync(again.modulesDisk ?? "").equals(bytes)).toBe(true);
});

test("a kernel that needs no modules to boot has those of its directory; no others, nor another kernel's", async () => {
  const store = join(dir, "built-in");
  const file = join(dir, "vmlinux-built-in");
  writeFileSync(file, elf());
  const builtin = ["virtio_mmio", "virtio_blk", "virtio_console", "ext4", "overlay"];
  /** A directory with one module that nobody boots with. */
  const given = (name: string, content: Buffer): string => {
    const root = join(dir, name);
    mkdirSync(join(root, "kernel"), { recursive: true });
    writeFileSync(join(root, "kernel/wireguard.ko"), content);
    writeFileSync(join(root, "modules.builtin"), builtin.map((each) => `${each}.ko\n`).join(""));
    return root;
  };
  const add = async (name: string, ...more: string[]) =>
    await addKernel({ dir: store, file, modulesDir: given(name, moduleFile("", ...more)) });
  const without = await addKernel({ dir: store, file });
  expect(without.modulesDisk).toBeUndefined();
  const kernel = await add("one", "vermagic=6.1.0-test SMP");
  expect(kernel).toMatchObject({ id: without.id, modules: [], modulesDisk: expect.any(String) });
  expect(await add("same", "vermagic=6.1.0-test SMP")).toEqual(kernel);
  expect(await addKernel({ dir: store, file })).toEqual(kernel);
  await expect(add("other", "vermagic=6.1.0-test SMP", "alias=other")).rejects.toMatchObject({
    code: "ERR_KERNEL_STORE",
    fix: expect.stringContaining(kernel.id),
  });
  await expect(add("foreign", "vermagic=6.2 SMP")).rejects.toMatchObject({
    code: "ERR_KERNEL_FEATURE",
    why: expect.stringContaining("6.1.0-test, its modules are of 6.2"),
  });
  expect(await listKernels(store)).toEqual([kernel]);
});
