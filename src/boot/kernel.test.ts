import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as zlib from "node:zlib";
import { spawnSync } from "node:child_process";
import { afterAll, describe, expect, test } from "vitest";
import {
  addKernel,
  listKernels,
  removeKernel,
  selectKernel,
  selectedKernelId,
  verifyKernel,
} from "./kernel.ts";
import { compareVersions } from "./kernel-debian.ts";
import { collectModules, modinfo } from "./kernel-modules.ts";
import { storeKernel, sweepKernels, withKernelStore } from "./kernel-store.ts";
import { unpackKernel } from "./kernel-unpack.ts";
import { decodeLz4Legacy } from "./lz4.ts";
import { builtinWords, elf, moduleFile } from "./testing.ts";

const dir = mkdtempSync(join(tmpdir(), "vmsan-kernel-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** A bzImage around a payload. */
function bzImage(payload: Buffer): Buffer {
  const setup = Buffer.alloc(1024 + 64);
  setup[0x1f1] = 1;
  setup.write("HdrS", 0x202, "latin1");
  setup.writeUInt16LE(0x20f, 0x206);
  setup.writeUInt32LE(64, 0x248);
  setup.writeUInt32LE(payload.length, 0x24c);
  return Buffer.concat([setup, payload, Buffer.alloc(512)]);
}

/** Little-endian size as Linux appends it to payloads. */
function sized(payload: Buffer, size: number): Buffer {
  const trailer = Buffer.alloc(4);
  trailer.writeUInt32LE(size);
  return Buffer.concat([payload, trailer]);
}

/** Pack with a program; undefined when it is not installed. */
function pack(file: string, args: string[], input: Buffer): Buffer | undefined {
  const result = spawnSync(file, args, { input });
  return result.error === undefined && result.status === 0 ? result.stdout : undefined;
}

/** An LZ4 legacy frame of literals only, which every packer may write. */
function lz4Literals(data: Buffer): Buffer {
  const lengths = [];
  let rest = data.length - 15;
  for (; rest >= 255; rest -= 255) lengths.push(255);
  lengths.push(rest);
  const block = Buffer.concat([Buffer.from([0xf0, ...lengths]), data]);
  const head = Buffer.alloc(8);
  head.writeUInt32LE(0x184c2102, 0);
  head.writeUInt32LE(block.length, 4);
  return Buffer.concat([head, block]);
}

describe("unpacking kernels", () => {
  const vmlinux = elf();
  const packers: Record<string, () => Buffer | undefined> = {
    none: () => vmlinux,
    gzip: () => zlib.gzipSync(vmlinux),
    zstd: () => sized(zlib.zstdCompressSync(vmlinux), vmlinux.length),
    "lz4 (literals)": () => sized(lz4Literals(vmlinux), vmlinux.length),
    lz4: () => {
      const packed = pack("lz4", ["-l", "-9", "-c"], vmlinux);
      return packed === undefined ? undefined : sized(packed, vmlinux.length);
    },
    xz: () => {
      const packed = pack("xz", ["--check=crc32", "-c"], vmlinux);
      return packed === undefined ? undefined : sized(packed, vmlinux.length);
    },
    lzma: () => {
      const packed = pack("xz", ["--format=lzma", "-c"], vmlinux);
      return packed === undefined ? undefined : sized(packed, vmlinux.length);
    },
    bzip2: () => {
      const packed = pack("bzip2", ["-c"], vmlinux);
      return packed === undefined ? undefined : sized(packed, vmlinux.length);
    },
    lzo: () => {
      const packed = pack("lzop", ["-c"], vmlinux);
      return packed === undefined ? undefined : sized(packed, vmlinux.length);
    },
  };
  for (const [name, make] of Object.entries(packers)) {
    test(`a bzImage with a ${name} payload`, async (context) => {
      const payload = make();
      if (payload === undefined) return context.skip(`no program packs ${name} here`);
      const image = await unpackKernel(bzImage(payload), "test");
      expect(image.bytes.equals(vmlinux)).toBe(true);
      expect(image).toMatchObject({ arch: "x86_64", pvh: true });
      expect(image.compression).toBe(name.split(" ")[0]);
    });
  }

  test("an ELF file as it is, with and without the PVH note", async () => {
    expect((await unpackKernel(elf(), "test")).pvh).toBe(true);
    expect((await unpackKernel(elf({ pvh: false }), "test")).pvh).toBe(false);
  });

  test("arm64: plain, gzip and EFI zboot", async () => {
    const image = Buffer.alloc(4096, 7);
    image.write("MZ", 0, "latin1");
    image.write("ARMd", 56, "latin1");
    const packed = zlib.gzipSync(image);
    const zboot = Buffer.alloc(2048);
    zboot.write("MZ\0\0zimg", 0, "latin1");
    zboot.writeUInt32LE(512, 8);
    zboot.writeUInt32LE(packed.length, 12);
    packed.copy(zboot, 512);
    for (const input of [image, Buffer.concat([packed, Buffer.alloc(1024)]), zboot]) {
      const result = await unpackKernel(input, "test");
      expect(result.arch).toBe("aarch64");
      expect(result.bytes.equals(image)).toBe(true);
    }
  });

  test.each<[string, () => Buffer]>([
    ["text", () => Buffer.alloc(4096, "hello")],
    ["a short file", () => Buffer.from("MZ")],
    ["another machine", () => elf({ machine: 3 })],
    ["a cut ELF file", () => elf().subarray(0, 5000)],
    ["a cut bzImage", () => bzImage(zlib.gzipSync(elf())).subarray(0, 3000)],
    [
      "a damaged payload",
      () => {
        const packed = zlib.gzipSync(elf());
        packed.fill(0, 1000, 1100);
        return bzImage(packed);
      },
    ],
    ["a wrong size", () => bzImage(sized(zlib.zstdCompressSync(elf()), 1))],
    ["an unknown compression", () => bzImage(Buffer.alloc(2000, 3))],
  ])("%s is refused with a typed error", async (_name, make) => {
    await expect(unpackKernel(make(), "test")).rejects.toMatchObject({ code: "ERR_KERNEL_FORMAT" });
  });

  test("a damaged LZ4 frame never reads or writes outside its block", () => {
    const good = lz4Literals(elf().subarray(0, 1000));
    for (let at = 4; at < good.length; at += 7) {
      const bad = Buffer.from(good);
      bad[at] = (bad[at] ?? 0) ^ 0xff;
      try {
        decodeLz4Legacy(bad, 1 << 20);
      } catch (error) {
        expect(error).toBeInstanceOf(RangeError);
      }
    }
  });
});

/** A /lib/modules directory. */
function modulesTree(name: string, modules: Record<string, string>, builtin: string[]): string {
  const root = join(dir, name);
  mkdirSync(join(root, "kernel", "drivers"), { recursive: true });
  for (const [file, depends] of Object.entries(modules)) {
    const bytes = moduleFile(depends);
    const data = file.endsWith(".gz") ? zlib.gzipSync(bytes) : bytes;
    writeFileSync(join(root, "kernel", "drivers", file), data);
  }
  writeFileSync(join(root, "modules.builtin"), builtin.map((b) => `kernel/${b}.ko\n`).join(""));
  return root;
}

describe("modules", () => {
  test("dependencies come first, once, and what is built in is left out", async () => {
    const root = modulesTree(
      "modules-a",
      {
        "virtio_mmio.ko": "virtio,virtio_ring",
        "virtio_ring.ko": "",
        "virtio.ko": "virtio_ring",
        "virtio_blk.ko.gz": "virtio,virtio_ring",
        "overlay.ko": "",
        "virtio-rng.ko": "virtio",
        "virtio_console.ko": "virtio",
        "unrelated.ko": "",
      },
      ["fs/ext4/ext4"],
    );
    const names = (await collectModules(root)).map((module) => module.name);
    expect(names).toEqual([
      "virtio_ring",
      "virtio",
      "virtio_mmio",
      "virtio_blk",
      "overlay",
      "virtio_console",
      "virtio_rng",
    ]);
  });

  test("a kernel without overlayfs, or without any channel, is refused", async () => {
    const none = modulesTree("modules-b", { "virtio_mmio.ko": "" }, ["virtio_blk", "ext4"]);
    await expect(collectModules(none)).rejects.toMatchObject({ code: "ERR_KERNEL_FEATURE" });
    const builtin = ["virtio_mmio", "virtio_blk", "ext4", "overlay"];
    const mute = modulesTree("modules-c", {}, builtin);
    await expect(collectModules(mute)).rejects.toMatchObject({ code: "ERR_KERNEL_FEATURE" });
    const whole = modulesTree("modules-d", {}, [...builtin, "virtio_console"]);
    expect(await collectModules(whole)).toEqual([]);
  });

  test("modinfo of something else than a module is empty", () => {
    expect(modinfo(Buffer.from("no ELF file"), "depends")).toEqual([]);
    expect(modinfo(elf(), "depends")).toEqual([]);
    expect(modinfo(moduleFile("a,b"), "depends")).toEqual(["a,b"]);
  });
});

describe("the kernel store", () => {
  test("what a killed writer left is swept, but not what one is working on", async () => {
    const store = join(dir, "sweep");
    expect(await sweepKernels(store)).toEqual([]);
    await withKernelStore(store, async (scratch) => {
      writeFileSync(join(scratch, "package.deb"), "half");
      expect(await sweepKernels(store)).toEqual([]);
      expect(readdirSync(scratch)).toEqual(["package.deb"]);
    });
    mkdirSync(join(store, ".tmp-0123456789abcdef", "kernel"), { recursive: true });
    writeFileSync(join(store, ".tmp-file"), "being written by selectKernel()");
    expect(await sweepKernels(store)).toEqual([".tmp-0123456789abcdef"]);
    expect(readdirSync(store).sort()).toEqual([".lock", ".tmp-file"]);
  });

  test("a file of a store is that kernel with its modules; so is a copy of it", async () => {
    const [store, other, away] = ["own", "other", "away"].map((name) => join(dir, "given", name));
    if (store === undefined || other === undefined || away === undefined) throw new Error("none");
    const image = await unpackKernel(elf({ builtin: [] }), "vmlinux");
    const modules = [{ name: "virtio_blk", bytes: moduleFile("") }];
    const kernel = await withKernelStore(
      store,
      async (scratch) =>
        await storeKernel(store, scratch, {
          image,
          modules,
          version: "6.1.0-test",
          origin: "debian",
          source: "x",
        }),
    );
    expect(await addKernel({ dir: store, file: kernel.vmlinux })).toEqual(kernel);
    symlinkSync(store, away);
    const linked = await addKernel({ dir: away, file: kernel.vmlinux });
    expect(linked.modules).toEqual([join(away, kernel.id, "modules", "virtio_blk.ko")]);
    const copy = join(dir, "given", "copy");
    writeFileSync(copy, image.bytes);
    expect(await addKernel({ dir: store, file: copy })).toEqual(kernel);
    // Another installation's is taken over whole.
    const taken = await addKernel({ dir: other, file: kernel.vmlinux });
    expect(taken.modules).toEqual([join(other, taken.id, "modules", "virtio_blk.ko")]);
    expect(readFileSync(taken.modules[0] ?? "").equals(moduleFile(""))).toBe(true);
  });

  test.each([
    ["virtio-mmio", "virtio_mmio"],
    ["virtio_blk", "virtio_blk"],
    ["EXT4-fs", "ext4"],
    ["overlayfs", "overlay"],
    ["virtio-ports", "a channel"],
  ])("without modules and without %s built in: refused", async (word, named) => {
    const file = join(dir, "lacking");
    writeFileSync(file, elf({ builtin: builtinWords.filter((one) => one !== word) }));
    const store = join(dir, "lacking-store");
    await expect(addKernel({ dir: store, file })).rejects.toMatchObject({
      code: "ERR_KERNEL_FEATURE",
      why: expect.stringContaining(`built in: ${named}`),
      fix: expect.stringContaining("--modules"),
    });
    expect(await listKernels(store)).toEqual([]);
  });

  test("add, list, select, verify; half-written leftovers go", async () => {
    const store = join(dir, "store");
    const file = join(dir, "bzImage");
    writeFileSync(file, bzImage(zlib.gzipSync(elf())));
    mkdirSync(join(store, ".tmp-0123456789abcdef", "kernel"), { recursive: true });
    const kernel = await addKernel({ dir: store, file });
    expect(kernel).toMatchObject({ version: "6.1.0-test", origin: "added", modules: [] });
    expect(readFileSync(kernel.vmlinux).equals(elf())).toBe(true);
    expect(await verifyKernel(kernel)).toBe(true);
    expect((await listKernels(store)).map((k) => k.id)).toEqual([kernel.id]);
    expect(readdirSync(store).filter((name) => name.startsWith(".tmp-"))).toEqual([]);
    await selectKernel(store, kernel.id);
    await selectKernel(store, "default");
    await expect(selectKernel(store, "../evil")).rejects.toMatchObject({
      code: "ERR_KERNEL_NOT_FOUND",
    });
    writeFileSync(kernel.vmlinux, Buffer.alloc(100));
    expect(await listKernels(store)).toEqual([]);
    const again = await addKernel({ dir: store, file });
    expect(again.id).toBe(kernel.id);
    expect(await verifyKernel(again)).toBe(true);
    await expect(addKernel({ dir: store, file: join(dir, "none") })).rejects.toMatchObject({
      code: "ERR_KERNEL_FORMAT",
    });
    await selectKernel(store, kernel.id);
    await removeKernel(store, kernel.id);
    expect(await selectedKernelId(store)).toBeUndefined();
    expect(readdirSync(store)).toEqual([".lock"]);
    await expect(removeKernel(store, kernel.id)).rejects.toMatchObject({
      code: "ERR_KERNEL_NOT_FOUND",
    });
  });

  test("the same kernel with other modules is another one, with the same ones the same", async () => {
    const store = join(dir, "store-modules");
    const scratch = join(dir, "scratch-modules");
    const image = await unpackKernel(elf(), "vmlinux");
    const put = async (bytes: string | undefined) => {
      mkdirSync(scratch, { recursive: true });
      const modules = bytes === undefined ? [] : [{ name: "ext4", bytes: Buffer.from(bytes) }];
      const given = { image, modules, version: "6.1", origin: "added", source: "x" } as const;
      return await storeKernel(store, scratch, given);
    };
    mkdirSync(store);
    const [without, one, other] = [await put(undefined), await put("one"), await put("other")];
    expect(new Set([without.id, one.id, other.id]).size).toBe(3);
    expect(other.modules.map((path) => readFileSync(path, "utf8"))).toEqual(["other"]);
    expect((await put("one")).id).toBe(one.id);
    expect(await listKernels(store)).toHaveLength(3);
  });

  test("a failing or aborted writer leaves nothing", async () => {
    const store = join(dir, "store-b");
    const failing = withKernelStore(store, async (scratch) => {
      writeFileSync(join(scratch, "half"), "x");
      throw new Error("boom");
    });
    await expect(failing).rejects.toThrow("boom");
    expect(readdirSync(store)).toEqual([".lock"]);
    const file = join(dir, "bzImage-b");
    writeFileSync(file, bzImage(zlib.gzipSync(elf())));
    const signal = AbortSignal.abort(new Error("stop"));
    await expect(addKernel({ dir: store, file, signal })).rejects.toThrow("stop");
    expect(readdirSync(store)).toEqual([".lock"]);
  });

  test("versions compare by number", () => {
    const versions = ["6.1.0-9", "6.1.0-56", "6.12.1", "6.1.0-10"];
    expect([...versions].sort(compareVersions)).toEqual([
      "6.1.0-9",
      "6.1.0-10",
      "6.1.0-56",
      "6.12.1",
    ]);
  });
});
