import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as zlib from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import { encodeCpio, cpioType } from "./cpio.ts";
import { assembleInitramfs, ensureInitramfs } from "./initramfs.ts";
import { elf, moduleFile } from "./testing.ts";

const dir = mkdtempSync(join(tmpdir(), "vmsan-initramfs-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe("initramfs", () => {
  const agent = join(dir, "agent");
  writeFileSync(agent, elf());

  test("cpio headers, names and padding follow newc", () => {
    const data = Buffer.from("abcde");
    const archive = encodeCpio([{ name: "f", mode: cpioType.file | 0o644, data }]);
    expect(archive.length % 512).toBe(0);
    expect(archive.toString("latin1", 0, 110)).toBe(
      `070701${[1, 0o100644, 0, 0, 1, 0, 5, 0, 0, 0, 0, 2, 0].map((n) => n.toString(16).padStart(8, "0")).join("")}`,
    );
    expect(archive.toString("latin1", 110, 112)).toBe("f\0");
    expect(archive.toString("latin1", 112, 117)).toBe("abcde");
    expect(archive.toString("latin1", 120, 126)).toBe("070701");
    expect(archive.includes("TRAILER!!!")).toBe(true);
  });

  test("the same parts give the same bytes; modules are listed in load order, unpacked", async () => {
    const plain = join(dir, "b.ko");
    const packed = join(dir, "a.ko.gz");
    writeFileSync(plain, moduleFile(""));
    writeFileSync(packed, zlib.gzipSync(moduleFile("b")));
    const outputs = [join(dir, "1.cpio"), join(dir, "2.cpio")];
    for (const output of outputs) {
      await assembleInitramfs({ agent, modules: [plain, packed], output });
    }
    const [one, two] = outputs.map((output) => readFileSync(output));
    expect(one?.equals(two ?? Buffer.alloc(0))).toBe(true);
    expect(one?.includes("/modules/b.ko\n/modules/a.ko\n")).toBe(true);
    expect(one?.includes(moduleFile("b"))).toBe(true);
  });

  test("an agent that is no static ELF file is refused before anything boots", async () => {
    const dynamic = elf();
    dynamic.writeUInt32LE(3, 120);
    for (const bytes of [dynamic, Buffer.from("#!/bin/sh\n"), elf().subarray(0, 80)]) {
      const bad = join(dir, "bad-agent");
      writeFileSync(bad, bytes);
      const making = assembleInitramfs({ agent: bad, modules: [], output: join(dir, "bad.cpio") });
      await expect(making).rejects.toMatchObject({ code: "ERR_INITRAMFS_AGENT" });
    }
    expect(readdirSync(dir)).not.toContain("bad.cpio");
  });

  test("cached by content: another agent is another archive", async () => {
    const cache = join(dir, "cache");
    const first = await ensureInitramfs({ dir: cache, agent, kernel: { modules: [] } });
    expect(await ensureInitramfs({ dir: cache, agent, kernel: { modules: [] } })).toBe(first);
    const other = join(dir, "agent-2");
    writeFileSync(other, Buffer.concat([elf(), Buffer.from("another agent")]));
    const second = await ensureInitramfs({ dir: cache, agent: other, kernel: { modules: [] } });
    expect(second).not.toBe(first);
    expect(readFileSync(second).includes("another agent")).toBe(true);
  });

  test("a damaged one is made again", async () => {
    const cache = join(dir, "damaged");
    const wanted = { dir: cache, agent, kernel: { modules: [] } };
    const path = await ensureInitramfs(wanted);
    const good = readFileSync(path);
    const flipped = Buffer.from(good);
    flipped.writeUInt8(flipped.readUInt8(500) ^ 1, 500);
    for (const bad of [Buffer.alloc(0), good.subarray(0, -512), flipped]) {
      writeFileSync(path, bad);
      expect(await ensureInitramfs(wanted)).toBe(path);
      expect(readFileSync(path).equals(good)).toBe(true);
    }
    rmSync(path);
    await ensureInitramfs(wanted);
    expect(readFileSync(path).equals(good)).toBe(true);
  });
});
