import { createHash } from "node:crypto";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { provisionFirecracker } from "./binaries.ts";

const dir = mkdtempSync(join(tmpdir(), "vmsan-provision-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** A release of scripts that say a version, the way the vendor packs it. */
function release(version: string, says = version): { base: string; sum: string } {
  const name = `release-v${version}-x86_64`;
  const tree = join(dir, version, name);
  mkdirSync(tree, { recursive: true });
  for (const [file, title] of [
    ["firecracker", "Firecracker"],
    ["jailer", "Jailer"],
  ] as const) {
    const path = join(tree, `${file}-v${version}-x86_64`);
    writeFileSync(path, `#!/bin/sh\necho '${title} v${says}'\n`);
    chmodSync(path, 0o755);
  }
  const base = join(dir, `base-${version}`);
  mkdirSync(join(base, `v${version}`), { recursive: true });
  const archive = join(base, `v${version}`, `firecracker-v${version}-x86_64.tgz`);
  execFileSync("tar", ["-czf", archive, "-C", join(dir, version), name]);
  const sum = createHash("sha256").update(readFileSync(archive)).digest("hex");
  writeFileSync(`${archive}.sha256.txt`, `${sum}  firecracker-v${version}-x86_64.tgz\n`);
  return { base, sum };
}

test("a release from a directory: checked, both programs in place, again from there", async () => {
  const { base } = release("1.16.1");
  const binDir = join(dir, "bin");
  const found = await provisionFirecracker({ binDir, arch: "x86_64", base });
  expect(found).toMatchObject({ version: "1.16.1", firecracker: join(binDir, "firecracker") });
  expect(found.jailer).toBe(join(binDir, "jailer"));
  expect(readdirSync(binDir).sort()).toEqual(["firecracker", "jailer"]);
});

test.each([
  ["a wrong sum", { sha256: "0".repeat(64) }],
  ["a release that is not there", { version: "9.9.9" }],
  ["a release that is too old", { version: "1.9.0" }],
])("%s: refused, nothing half-made", async (_name, options) => {
  const { base } = release("1.9.0");
  const binDir = join(dir, `bin-${Object.values(options).join("")}`.slice(0, 60));
  const going = provisionFirecracker({
    binDir,
    arch: "x86_64",
    base,
    version: "1.9.0",
    ...options,
  });
  await expect(going).rejects.toMatchObject({ code: "ERR_SETUP_FIRECRACKER" });
  const left = (() => {
    try {
      return readdirSync(binDir).filter((name) => name.startsWith("."));
    } catch {
      // ENOENT: not even the directory was made.
      return [];
    }
  })();
  expect(left).toEqual([]);
});
