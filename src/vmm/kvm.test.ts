import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { kvmFirmware, kvmPayload } from "./kvm-payload.ts";
import { probeKvm } from "./kvm.ts";

const dir = mkdtempSync(join(tmpdir(), "vmsan-kvm-test-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** A program that plays QEMU: writes to the serial file, complains, ends with a status. */
function fakeQemu(name: string, serial: string, complaint: string, status: number): string {
  const path = join(dir, name);
  const script = `#!/bin/sh
for a in "$@"; do case "$a" in file:*) printf '%s' '${serial}' > "\${a#file:}";; esac; done
echo '${complaint}' >&2
echo run >> '${path}.runs'
exit ${status}
`;
  writeFileSync(path, script);
  chmodSync(path, 0o755);
  return path;
}
// Any character device that can be opened passes for KVM's as far as opening goes.
const device = "/dev/null";
const onX64 = test.skipIf(process.arch !== "x64");

onX64("a KVM that runs the whole program is usable, and is not asked again", async () => {
  const qemu = fakeQemu("good", "RPLXMUTC", "", 65);
  const cacheDir = join(dir, "cache-good");
  for (let i = 0; i < 2; i++) {
    const probe = await probeKvm({ qemu, cacheDir, device });
    expect(probe).toMatchObject({ usable: true, cpu: "host", reached: "RPLXMUTC" });
  }
  expect(readFileSync(`${qemu}.runs`, "utf8")).toBe("run\n");
});

onX64("one that stops half-way is not, and says where", async () => {
  const qemu = fakeQemu("half", "RPL", "KVM internal error. Suberror: 1", 0);
  const probe = await probeKvm({ qemu, cacheDir: join(dir, "cache-half"), device });
  expect(probe).toMatchObject({ usable: false, reached: "RPL" });
  expect(probe.reason).toContain("exceptions in the kernel");
});

onX64("a refused register is tried again without it; a status alone proves nothing", async () => {
  const qemu = fakeQemu("refuses", "", "error: failed to set MSR 0x10a", 134);
  const probe = await probeKvm({ qemu, cacheDir: join(dir, "cache-refuses"), device });
  expect(probe.usable).toBe(false);
  expect(probe.reason).toContain("MSR 0x10a");
  expect(readFileSync(`${qemu}.runs`, "utf8")).toBe("run\nrun\n");
});

onX64("a damaged or foreign cache is ignored", async () => {
  const qemu = fakeQemu("again", "RPLXMUTC", "", 65);
  const cacheDir = join(dir, "cache-again");
  await probeKvm({ qemu, cacheDir, device });
  const path = join(cacheDir, "kvm.json");
  for (const text of [
    "{",
    JSON.stringify({ key: "x", at: Date.now(), probe: { usable: false, reason: "" } }),
  ]) {
    writeFileSync(path, text);
    expect((await probeKvm({ qemu, cacheDir, device })).usable).toBe(true);
  }
  const stored = JSON.parse(readFileSync(path, "utf8")) as { at: number };
  writeFileSync(path, JSON.stringify({ ...stored, at: Date.now() - 25 * 3_600_000 }));
  await probeKvm({ qemu, cacheDir, device });
  expect(readFileSync(`${qemu}.runs`, "utf8").split("\n")).toHaveLength(5);
});

test("no device, or something that is none", async () => {
  const cacheDir = join(dir, "cache-none");
  const missing = await probeKvm({ cacheDir, device: join(dir, "nothing") });
  expect(missing).toMatchObject({ usable: false });
  expect(missing.reason).toContain("There is no");
  const file = await probeKvm({ cacheDir, device: import.meta.filename });
  expect(file.reason).toContain("is not a device");
});

test("the program is what its source says", (context) => {
  const object = join(dir, "p.o");
  const binary = join(dir, "p.bin");
  const source = join(import.meta.dirname, "kvm-payload.S");
  if (process.arch !== "x64" || spawnSync("as", ["--version"]).error !== undefined) {
    context.skip("needs GNU as for x86_64");
  }
  expect(spawnSync("as", ["--64", "-o", object, source]).status).toBe(0);
  const linked = spawnSync("ld", ["-Ttext=0xf0000", "--oformat", "binary", "-o", binary, object]);
  expect(linked.status).toBe(0);
  expect(readFileSync(binary).equals(kvmPayload)).toBe(true);
  expect(kvmFirmware()).toHaveLength(65_536);
});
