/** Firecracker by `setup`: from a directory as releases have it, checked, whole or not at all. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
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
import { hostArch } from "../boot/kernel.ts";
import { layoutOf } from "../util/paths.ts";
import { runSetup } from "./setup.ts";

const root = mkdtempSync(join(tmpdir(), "vmsan-setup-fc-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** A release's directory with programs that only know their version. */
function release(version: string, sum?: string): string {
  const base = mkdtempSync(join(root, "release-"));
  const name = `release-v${version}-${hostArch()}`;
  mkdirSync(join(base, name));
  for (const program of ["firecracker", "jailer"]) {
    const path = join(base, name, `${program}-v${version}-${hostArch()}`);
    const said = program === "jailer" ? "Jailer" : "Firecracker";
    writeFileSync(path, `#!/bin/sh\necho "${said} v${version}"\n`);
    chmodSync(path, 0o755);
  }
  mkdirSync(join(base, `v${version}`));
  const archive = join(base, `v${version}`, `firecracker-v${version}-${hostArch()}.tgz`);
  execFileSync("tar", ["-C", base, "-czf", archive, name]);
  const digest = sum ?? createHash("sha256").update(readFileSync(archive)).digest("hex");
  writeFileSync(`${archive}.sha256.txt`, `${digest}  ${archive}\n`);
  return base;
}

/** What becomes of the Firecracker item; nothing else is fetched. */
async function setUp(
  dir: string,
  firecracker: { base?: string; version?: string },
): Promise<{ status: string; code: string | undefined }> {
  const layout = layoutOf(dir);
  const { items } = await runSetup({ layout, runtimes: [], offline: true, firecracker });
  const item = items.find(({ name }) => name === "firecracker");
  return { status: item?.status ?? "", code: item?.error?.code };
}

test("fetched once, then found", async () => {
  const dir = join(root, "good");
  const source = { base: release("1.16.1"), version: "1.16.1" };
  expect(await setUp(dir, source)).toEqual({ status: "made", code: undefined });
  expect(readdirSync(join(dir, "bin")).toSorted()).toEqual(["firecracker", "jailer"]);
  expect((await setUp(dir, source)).status).toBe("cached");
});

test("a wrong sum, an old release, a missing one: an error, and nothing is left", async () => {
  const cases = [
    { base: release("1.16.1", "0".repeat(64)), version: "1.16.1" },
    { base: release("1.9.0"), version: "1.16.1" },
    { base: join(root, "nowhere") },
  ];
  for (const [index, source] of cases.entries()) {
    const dir = join(root, `bad-${index}`);
    expect(await setUp(dir, source)).toEqual({ status: "failed", code: "ERR_SETUP_FIRECRACKER" });
    expect(existsSync(join(dir, "bin", "firecracker"))).toBe(false);
  }
});

test("offline, without a directory to take it from", async () => {
  const result = await setUp(join(root, "offline"), { base: "https://releases.invalid" });
  expect(result).toEqual({ status: "failed", code: "ERR_SETUP_OFFLINE" });
});
