/** `vmsan kernel …` through the daemon, in a store of its own. */
import { copyFileSync, existsSync, writeFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { listKernels } from "../../../src/boot/kernel.ts";
import { installation } from "../../fixtures/ladder.ts";
import { errorCode, preparedDir, vmsan, vmsanJson } from "../support.ts";

interface List {
  kernels: { id: string; current: boolean; origin: string; usedBy: string[]; modules: number }[];
  chosen: string;
}

const here = installation(["initramfs", "probes", "runtimes", "rootfs", "images"]);
let file = "";
let modules = 0;
beforeAll(async () => {
  const [prepared] = await listKernels(join(preparedDir, "kernels"));
  if (prepared === undefined) throw new Error("no kernel is prepared");
  file = prepared.vmlinux;
  modules = prepared.modules.length;
});

const call = async <T>(...args: string[]) => await vmsanJson<T>(["kernel", ...args], here);

test("a kernel is added once, however often; chosen, used by nobody, removed", async () => {
  expect(await call<List>("ls")).toEqual({ kernels: [], chosen: "default" });
  const first = await call<{ id: string; current: boolean }>("add", file);
  const again = await call<{ id: string }>("add", file);
  expect(again.id).toBe(first.id);
  const { kernels } = await call<List>("ls");
  expect(kernels).toMatchObject([{ id: first.id, origin: "added", usedBy: [], modules }]);
  // One of the user's is no default: it must be chosen.
  expect(kernels[0]?.current).toBe(false);
  expect(await call("use", first.id)).toEqual({ chosen: first.id, current: first.id });
  expect((await call<List>("ls")).kernels[0]?.current).toBe(true);
  expect(await call("rm", first.id)).toEqual({ removed: [first.id] });
  expect(await call<List>("ls")).toEqual({ kernels: [], chosen: "default" });
  expect(await readdir(join(here.dir, "kernels"))).toEqual([".lock"]);
});

test("a path into a store boots with the modules that are there", async () => {
  const args = ["run", "--driver", "qemu", "--network", "none", "--kernel", file, "base", "--"];
  const { code, stdout, stderr } = await vmsan([...args, "uname", "-r"], here);
  expect(stderr).toBe("");
  expect([code, file]).toEqual([0, expect.stringContaining(stdout.toString().trim())]);
  const [own] = (await call<List>("ls")).kernels;
  expect(own).toMatchObject({ modules, usedBy: [] });
  await call("rm", own?.id ?? "");
});

test("a kernel that lacks what a guest needs is refused before anything boots", async () => {
  const bare = join(here.dir, "bare");
  copyFileSync(file, bare);
  expect(await errorCode(["kernel", "add", bare], here)).toBe("ERR_KERNEL_FEATURE");
  const create = ["create", "--driver", "qemu", "--kernel", bare];
  expect(await errorCode(create, here)).toBe("ERR_KERNEL_FEATURE");
  expect(await readdir(join(here.dir, "vms"))).toEqual([]);
});

test("what is no kernel is refused and leaves nothing", async () => {
  const text = join(here.dir, "text");
  writeFileSync(text, "no kernel".repeat(1000));
  expect(await errorCode(["kernel", "add", text], here)).toBe("ERR_KERNEL_FORMAT");
  expect(await errorCode(["kernel", "add", join(here.dir, "none")], here)).toBe(
    "ERR_KERNEL_FORMAT",
  );
  expect(await errorCode(["kernel", "use", "none"], here)).toBe("ERR_KERNEL_NOT_FOUND");
  expect(await errorCode(["kernel", "rm", "../run"], here)).toBe("ERR_KERNEL_NOT_FOUND");
  expect(existsSync(join(here.dir, "run"))).toBe(true);
  expect((await vmsan(["kernel", "ls"], here)).stdout.toString()).toMatch(/ID +ARCH/);
});
