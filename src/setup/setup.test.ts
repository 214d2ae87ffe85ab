/** Setup and bundles with stand-ins for the programs they run: quick, no network. */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  chmod,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  rm,
  truncate,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { listKernels } from "../boot/kernel.ts";
import { builtinRuntimes, listBuiltRuntimes } from "../runtimes/index.ts";
import { startFaulty } from "../../test/registry/faulty.ts";
import { makeImage, noise, tarOf } from "../../test/registry/fixture.ts";
import type { ProgressSink } from "../model/progress.ts";
import { layoutOf, type Layout } from "../util/paths.ts";
import { run } from "../util/run.ts";
import { writeBundle } from "./bundle.ts";
import { planSetup, runSetup, type SetupReport } from "./setup.ts";

let dir: string;
let layout: Layout;
let tools: string;

/** A program on PATH with that shell text. */
async function tool(name: string, text: string): Promise<void> {
  await writeFile(join(tools, name), `#!/bin/sh\n${text}\n`);
  await chmod(join(tools, name), 0o755);
}

/** A kernel in the store, as whole as the store asks for. */
async function putKernel(at: Layout, content = "a kernel"): Promise<void> {
  const home = join(at.kernels, "k1");
  await mkdir(join(home, "modules"), { recursive: true });
  const kernel = {
    schema: 1,
    id: "k1",
    version: "6.1.0",
    arch: process.arch === "arm64" ? "aarch64" : "x86_64",
    sizeBytes: content.length,
    sha256: createHash("sha256").update(content).digest("hex"),
    origin: "debian",
    modules: [],
  };
  await writeFile(join(home, "kernel.json"), JSON.stringify(kernel));
  await writeFile(join(home, "vmlinux"), content);
}

const statuses = (report: SetupReport): Record<string, string> =>
  Object.fromEntries(report.items.map(({ name, status }) => [name, status]));

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "vmsan-setup-"));
  layout = layoutOf(join(dir, "v"));
  tools = join(dir, "tools");
  await mkdir(tools);
  await mkdir(layout.root, { recursive: true });
  vi.stubEnv("PATH", `${tools}:${process.env["PATH"] ?? ""}`);
  vi.stubEnv("VMSAN_AGENT", join(dir, "agent"));
  await writeFile(join(dir, "agent"), "agent");
  for (const name of ["apt-config", "fakechroot", "fakeroot", "pasta", "ip", "nft"]) {
    await tool(name, "exit 0");
  }
  for (const name of ["qemu-system-x86_64", "qemu-system-aarch64"]) await tool(name, "exit 0");
  await tool("apt-get", `echo "E: no network" >&2; exit 100`);
  await tool("apt-cache", "exit 100");
  const base = {
    kind: "debian",
    packages: ["git"],
    suite: "bookworm",
    mirror: "http://192.0.2.1/d",
  };
  const catalogue = { schema: 1, runtimes: { base: { recipe: base }, go: { image: "golang:1" } } };
  await writeFile(join(layout.root, "runtimes.json"), JSON.stringify(catalogue));
  await tool(
    "mmdebstrap",
    `for a; do case $a in *.tar) out=$a;; esac; done
mkdir -p t/var/lib/dpkg; printf 'Package: git\\nVersion: 1\\n' >t/var/lib/dpkg/status
tar -cf "$out" -C t .`,
  );
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(dir, { recursive: true });
});

describe("setup", () => {
  test("plans without doing anything", async () => {
    const plan = await planSetup({ layout, runtimes: ["base", "go"] });
    const states = Object.fromEntries(plan.map(({ name, state }) => [name, state]));
    expect(states).toMatchObject({
      programs: "ready",
      agent: "ready",
      kernel: "missing",
      base: "missing",
      go: "missing",
    });
    expect(plan.find(({ name }) => name === "base")?.fetchBytes).toBeGreaterThan(0);
    expect(await readdir(layout.root)).toEqual(["runtimes.json"]);
  });

  test("makes what is missing; the second run starts no process", async () => {
    await putKernel(layout);
    const messages: string[] = [];
    const first = await runSetup({ layout, progress: ({ item }) => messages.push(item ?? "") });
    expect(first).toMatchObject({ ok: true });
    expect(statuses(first)).toMatchObject({ kernel: "cached", base: "made", agent: "cached" });
    expect(messages).toContain("base");
    for (const name of await readdir(tools)) await tool(name, `echo ${name} >>${join(dir, "ran")}`);
    const second = await runSetup({ layout });
    expect(second.items.filter(({ status }) => status === "made")).toEqual([]);
    expect(await readdir(dir)).not.toContain("ran");
  });

  test("a runtime that is an image is fetched, with progress, or fails", async () => {
    await putKernel(layout);
    const image = makeImage({ layers: [tarOf("lang", noise(100_000, 1))] });
    const registry = await startFaulty({
      repository: "a/lang",
      tags: { latest: image.manifest },
      images: [image],
    });
    try {
      const runtimes = {
        lang: { image: `${registry.host}/a/lang` },
        far: { image: `${registry.host}/no/where` },
      };
      const file = join(layout.root, "runtimes.json");
      await writeFile(file, JSON.stringify({ schema: 1, runtimes }));
      const item = async (names: string[], rest = {}): Promise<SetupReport["items"]> =>
        (await runSetup({ layout, runtimes: names, ...rest })).items.filter(({ name }) =>
          names.includes(name),
        );
      const [offline] = await item(["lang"], { offline: true });
      expect(offline).toMatchObject({ status: "failed", error: { code: "ERR_SETUP_OFFLINE" } });
      const events: string[] = [];
      const progress: ProgressSink = ({ phase, total }) => events.push(`${phase} ${total ?? ""}`);
      const both = await item(["lang", "far"], { progress });
      expect(both[0]).toMatchObject({ status: "made", detail: expect.stringContaining("sha256:") });
      expect(both[1]).toMatchObject({ status: "failed", error: { code: "ERR_IMAGE_NOT_FOUND" } });
      expect(events.some((event) => /^pull \d+$/.test(event))).toBe(true);
      // Now it is there: no network, offline as well.
      await registry.stop();
      expect((await item(["lang"], { offline: true }))[0]).toMatchObject({ status: "cached" });
      const plan = await planSetup({ layout, runtimes: ["lang", "far"] });
      expect(plan.slice(-2).map(({ state }) => state)).toEqual(["ready", "missing"]);
    } finally {
      await registry.stop();
    }
  });

  test("an item that fails stops no other, and says how to get it", async () => {
    await putKernel(layout);
    await tool("mmdebstrap", `echo "E: Temporary failure resolving 'mirror'" >&2; exit 1`);
    await rm(join(dir, "agent"));
    const report = await runSetup({ layout });
    expect(report.ok).toBe(false);
    expect(statuses(report)).toMatchObject({ kernel: "cached", base: "failed", agent: "failed" });
    const base = report.items.find(({ name }) => name === "base");
    expect(base?.error).toMatchObject({
      code: "ERR_RUNTIME_FETCH",
      fix: expect.stringContaining("--mirror"),
    });
    await tool("mmdebstrap", "exit 1");
    await writeFile(join(dir, "agent"), "agent");
    expect(statuses(await runSetup({ layout }))).toMatchObject({ agent: "cached", base: "failed" });
  });

  test("no kernel to be had fails that item with its code", async () => {
    const report = await runSetup({ layout });
    expect(report.items.find(({ name }) => name === "kernel")?.error?.code).toBe(
      "ERR_KERNEL_MISSING",
    );
    expect(statuses(report)).toMatchObject({ base: "made" });
  });

  test("offline fetches nothing and says what is missing", async () => {
    await tool("mmdebstrap", `touch ${join(dir, "ran")}`);
    const report = await runSetup({ layout, offline: true });
    expect(report.items.flatMap(({ error }) => error?.code ?? [])).toEqual([
      "ERR_SETUP_OFFLINE",
      "ERR_RUNTIME_MISSING",
    ]);
    expect(await readdir(dir)).not.toContain("ran");
  });

  test("an unknown runtime is refused before anything is made", async () => {
    await expect(runSetup({ layout, runtimes: ["nope"] })).rejects.toMatchObject({
      code: "ERR_VALIDATION_RUNTIME",
    });
    expect(Object.keys(builtinRuntimes)).toContain("node22");
  });

  test("aborted it leaves nothing half made", async () => {
    await putKernel(layout);
    await tool("mmdebstrap", `echo "I: installing things"; sleep 60 & wait`);
    const controller = new AbortController();
    const running = runSetup({
      layout,
      signal: controller.signal,
      progress: ({ message }) => {
        if (message === "installing things") controller.abort(new Error("enough"));
      },
    });
    await expect(running).rejects.toThrow("enough");
    expect(await readdir(layout.runtimes)).toEqual([".lock"]);
  });
});

test("killed at 30 random moments and run again: complete, nothing half made, nothing wrong", async () => {
  await putKernel(layout);
  const args = [join(import.meta.dirname, "../../bin/start.cjs"), "setup", "--json"];
  // No daemon: what it makes behind the command is another test's.
  const env = { ...process.env, VMSAN_DIR: layout.root, VMSAN_WARM: "off" };
  const start = performance.now();
  expect(await run(process.execPath, args, { env })).toMatchObject({ code: 0 });
  const usual = performance.now() - start;
  let cut = 0;
  for (let i = 0; i < 30; i += 1) {
    for (const { path } of await listBuiltRuntimes(layout.runtimes))
      await rm(path, { recursive: true });
    const child = spawn(process.execPath, args, { env, stdio: "ignore", detached: true });
    const ended = once(child, "exit");
    await Promise.race([sleep(Math.random() * usual), ended]);
    child.kill("SIGKILL");
    await ended;
    if (child.signalCode !== null) cut += 1;
    expect(await runSetup({ layout })).toMatchObject({ ok: true });
    const [made, ...others] = await listBuiltRuntimes(layout.runtimes);
    expect(others).toEqual([]);
    expect((await readdir(layout.runtimes)).sort()).toEqual([".lock", basename(made?.path ?? "")]);
    for (const { digest } of made?.layers ?? []) {
      const blob = await readFile(join(made?.path ?? "", "blobs/sha256", digest.slice(7)));
      expect(`sha256:${createHash("sha256").update(blob).digest("hex")}`).toBe(digest);
    }
  }
  expect(cut).toBeGreaterThan(5);
}, 240_000);

describe("bundles", () => {
  let other: Layout;
  let file: string;
  beforeEach(async () => {
    await putKernel(layout);
    await runSetup({ layout });
    file = join(dir, "vmsan.bundle");
    const catalogue = { ...builtinRuntimes, ...(await readOwnCatalogue()) };
    expect(await writeBundle({ layout, catalogue, runtimes: ["base"], file })).toBeGreaterThan(
      1000,
    );
    other = layoutOf(join(dir, "other"));
    await mkdir(other.root);
    await writeFile(
      join(other.root, "runtimes.json"),
      await readFile(join(layout.root, "runtimes.json")),
    );
    // Whoever takes a bundle has no network and no tools.
    await tool("mmdebstrap", "exit 1");
  });

  /** The test's catalogue, as the setup reads it. */
  async function readOwnCatalogue() {
    const { readCatalogue } = await import("../runtimes/index.ts");
    return await readCatalogue(join(layout.root, "runtimes.json"));
  }

  test("carry everything to another host, also unpacked, also twice", async () => {
    const report = await runSetup({ layout: other, from: file, offline: true });
    expect(report).toMatchObject({ ok: true });
    expect(statuses(report)).toMatchObject({ kernel: "cached", base: "cached" });
    expect(await listKernels(other.kernels)).toHaveLength(1);
    const [mine] = await listBuiltRuntimes(layout.runtimes);
    const [theirs] = await listBuiltRuntimes(other.runtimes);
    expect(theirs?.manifest).toBe(mine?.manifest);
    expect((await runSetup({ layout: other, from: file, offline: true })).ok).toBe(true);
    expect(await readdir(other.root)).toEqual(["kernels", "runtimes", "runtimes.json"]);

    const unpacked = join(dir, "unpacked");
    await mkdir(unpacked);
    await run("tar", ["-xf", file, "-C", unpacked]);
    await rm(other.kernels, { recursive: true });
    await rm(other.runtimes, { recursive: true });
    expect((await runSetup({ layout: other, from: unpacked, offline: true })).ok).toBe(true);
  });

  /** Change a file of the unpacked bundle and expect a refusal that leaves nothing half taken. */
  async function refused(
    change: (unpacked: string) => Promise<unknown>,
    why: RegExp,
  ): Promise<void> {
    const unpacked = join(dir, "unpacked");
    await mkdir(unpacked);
    await run("tar", ["-xf", file, "-C", unpacked]);
    await change(unpacked);
    await expect(runSetup({ layout: other, from: unpacked, offline: true })).rejects.toMatchObject({
      code: "ERR_SETUP_BUNDLE",
      why: expect.stringMatching(why),
    });
    expect(await listKernels(other.kernels)).toEqual([]);
    const left = await readdir(other.root, { recursive: true });
    expect(left.filter((name) => !/^(runtimes\.json|kernels(\/\.lock)?)$/.test(name))).toEqual([]);
  }

  test("a changed file", () =>
    refused((at) => writeFile(join(at, "kernels/k1/vmlinux"), "A kernel"), /checksum/));
  test("a truncated file", () =>
    refused((at) => truncate(join(at, "kernels/k1/vmlinux"), 3), /size/));
  test("a missing file", () => refused((at) => rm(join(at, "kernels/k1/vmlinux")), /missing/));
  test("no manifest", () => refused((at) => rm(join(at, "bundle.json")), /bundle\.json/));

  /** Change the manifest. */
  const manifest =
    (edit: (value: { arch: string; files: { path: string }[] }) => void) => async (at: string) => {
      const value = JSON.parse(await readFile(join(at, "bundle.json"), "utf8")) as {
        arch: string;
        files: { path: string }[];
      };
      edit(value);
      await writeFile(join(at, "bundle.json"), JSON.stringify(value));
    };
  test("another architecture", () =>
    refused(
      manifest((value) => (value.arch = "riscv64")),
      /riscv64/,
    ));
  test("a path that leads out", () =>
    refused(
      manifest((value) => value.files.push({ path: "kernels/k1/../../../x" })),
      /not one of this version/,
    ));

  test("an archive that was cut short, or is none", async () => {
    await truncate(file, 4000);
    const attempt = () => runSetup({ layout: other, from: file, offline: true });
    await expect(attempt()).rejects.toMatchObject({ code: "ERR_SETUP_BUNDLE" });
    await rm(file);
    await expect(attempt()).rejects.toMatchObject({ code: "ERR_SETUP_BUNDLE" });
    expect(await listKernels(other.kernels)).toEqual([]);
    expect(await listBuiltRuntimes(other.runtimes)).toEqual([]);
  });
});
