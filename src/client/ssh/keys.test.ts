import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { sshPublicKey } from "../../agent/ssh.ts";
import { layoutOf } from "../../util/paths.ts";
import type { Layout } from "../../util/paths.ts";
import { clientKey, noteHostKeys } from "./keys.ts";

let layout: Layout;
beforeEach(async () => {
  layout = layoutOf(await mkdtemp(join(tmpdir(), "vmsan-ssh-")));
});
afterEach(async () => await rm(layout.root, { recursive: true, force: true }));

test("a key is made once, whoever asks at the same time, and nobody else reads it", async () => {
  const keys = await Promise.all(Array.from({ length: 4 }, async () => await clientKey(layout)));
  expect(new Set(keys.map(({ publicKey }) => publicKey)).size).toBe(1);
  expect(await clientKey(layout)).toEqual(keys[0]);
  const { file, publicKey } = await clientKey(layout);
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  expect((await stat(layout.ssh)).mode & 0o777).toBe(0o700);
  expect(await readdir(layout.ssh)).toEqual(["client"]);
  const derived = execFileSync("ssh-keygen", ["-y", "-f", file], { encoding: "utf8" });
  expect(publicKey.split(" ").slice(0, 2)).toEqual(derived.trim().split(" ").slice(0, 2));
});

test("host keys are noted by the VM's ID; those of VMs that are gone go", async () => {
  const key = sshPublicKey(Buffer.alloc(32, 1));
  const other = sshPublicKey(Buffer.alloc(32, 2));
  expect(other).not.toBe(key);
  const all = (): boolean => true;
  await noteHostKeys(layout, new Map([["vm-00000001", key]]), all);
  const file = await noteHostKeys(layout, new Map([["vm-00000002", other]]), all);
  expect(await readFile(file, "utf8")).toBe(
    `vmsan-vm-00000001 ${key}\nvmsan-vm-00000002 ${other}\n`,
  );
  await noteHostKeys(layout, new Map([["vm-00000003", key]]), (id) => id !== "vm-00000001");
  expect(await readFile(file, "utf8")).toBe(
    `vmsan-vm-00000002 ${other}\nvmsan-vm-00000003 ${key}\n`,
  );
  // Those of gateways stay, whatever is here.
  const gateways = await noteHostKeys(layout, new Map([["vm-00000004", key]]), undefined);
  await noteHostKeys(layout, new Map([["vm-00000005", other]]), undefined);
  expect(gateways).not.toBe(file);
  expect((await readFile(gateways, "utf8")).split("\n")).toHaveLength(3);
  // OpenSSH reads it.
  const found = execFileSync("ssh-keygen", ["-F", "vmsan-vm-00000002", "-f", file]);
  expect(found.toString()).toContain(other);
});
