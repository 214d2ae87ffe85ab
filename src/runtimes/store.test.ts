/** The store with stand-ins for mmdebstrap, apt and npm on PATH: quick, no network. */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  chmod,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  realpath,
  rm,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { zstdDecompressSync } from "node:zlib";
import type { Runtime } from "./catalogue.ts";
import { builderTemporary } from "./builder.ts";
import { ensureRuntime, listBuiltRuntimes, pruneRuntimes, sweepRuntimes } from "./store.ts";

let dir: string;
let tools: string;
let catalogue: Record<string, Runtime>;

/** A program on PATH with that shell text. */
async function tool(name: string, text: string): Promise<void> {
  await writeFile(join(tools, name), `#!/bin/sh\n${text}\n`);
  await chmod(join(tools, name), 0o755);
}

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "vmsan-runtimes-"));
  tools = join(dir, "tools");
  await mkdir(tools);
  catalogue = {
    base: {
      recipe: {
        kind: "debian",
        packages: ["git"],
        suite: "bookworm",
        mirror: "http://192.0.2.1/d",
      },
      user: "ubuntu",
      cmd: ["/bin/bash"],
    },
    node22: { recipe: { kind: "node", from: "base", version: "22", npm: "10" }, cmd: ["node"] },
  };
  vi.stubEnv("PATH", `${tools}:${process.env["PATH"] ?? ""}`);
  for (const name of ["apt-config", "fakechroot", "fakeroot"]) await tool(name, "exit 0");
  await tool("npm", `echo "no npm here" >&2; exit 1`);
  // The archive is the argument that ends in .tar.
  await tool(
    "mmdebstrap",
    `echo run >>${join(dir, "count")}
for a; do case $a in *.tar) out=$a;; esac; done
mkdir -p t/var/lib/dpkg t/etc; echo ID=debian >t/etc/os-release
printf 'Package: git\\nVersion: 1:2.39\\n' >t/var/lib/dpkg/status
echo "I: installing things"
tar -cf "$out" -C t .`,
  );
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(dir, { recursive: true });
});

const store = (): string => join(dir, "store");
const runs = async (): Promise<number> =>
  (await readFile(join(dir, "count"), "utf8").catch(() => "")).split("\n").length - 1;

const ensure = (name = "base", more: object = {}) =>
  ensureRuntime({ dir: store(), name, catalogue, ...more });

describe("making a runtime", () => {
  test("gives a whole OCI layout, whose blobs are what their names say", async () => {
    const messages: string[] = [];
    const made = await ensure("base", {
      progress: (event: { message?: string }) => messages.push(event.message ?? ""),
    });
    expect(made.cached).toBe(false);
    expect(made.source).toMatchObject({ kind: "oci", tag: "base" });
    expect(made.built?.packages).toEqual({ git: "1:2.39" });
    expect(messages).toContain("installing things");
    const path = made.source.kind === "oci" ? made.source.path : "";
    const blobs = join(path, "blobs", "sha256");
    for (const name of await readdir(blobs)) {
      const content = await readFile(join(blobs, name));
      expect(createHash("sha256").update(content).digest("hex")).toBe(name);
    }
    const layer = made.built?.layers[0];
    const packed = await readFile(join(blobs, layer?.digest.slice(7) ?? ""));
    const plain = createHash("sha256").update(zstdDecompressSync(packed)).digest("hex");
    expect(layer?.diffId).toBe(`sha256:${plain}`);
    const index = JSON.parse(await readFile(join(path, "index.json"), "utf8")) as {
      manifests: { digest: string }[];
    };
    expect(index.manifests[0]?.digest).toBe(made.built?.manifest);
  });

  test("packages that are only unpacked come in an archive that a hook writes", async () => {
    await tool(
      "mmdebstrap",
      `printf '%s\\n' "$@" >${join(dir, "words")}
mkdir -p t/var/lib/dpkg; printf 'Package: git\\nVersion: 1:2.47\\n' >t/var/lib/dpkg/status
tar -cf "$VMSAN_ARCHIVE" -C t .`,
    );
    catalogue["tools"] = {
      recipe: {
        kind: "debian",
        packages: ["git"],
        suite: "trixie",
        mirror: "http://192.0.2.1/d",
        unpack: true,
      },
    };
    const made = await ensure("tools");
    expect(made.built?.packages).toEqual({ git: "1:2.47" });
    const words = (await readFile(join(dir, "words"), "utf8")).split("\n");
    expect(words).toContain("--variant=extract");
    expect(words).toContain("trixie");
    // None of them runs a program of the tree.
    expect(words.filter((word) => word.startsWith("--customize-hook"))).toEqual([]);
    expect(words.filter((word) => /chroot "/.test(word))).toEqual([]);
  });

  test("the second time nothing is run, also offline; many at once make it once", async () => {
    await Promise.all([ensure(), ensure(), ensure()]);
    expect(await runs()).toBe(1);
    vi.stubEnv("PATH", "/nonexistent");
    expect(await ensure("base", { offline: true })).toMatchObject({ cached: true });
  });

  test("offline and not there: a coded error, nothing made", async () => {
    await expect(ensure("base", { offline: true })).rejects.toMatchObject({
      code: "ERR_RUNTIME_MISSING",
    });
    expect(await runs()).toBe(0);
  });

  test("a truncated layer or a broken description is not accepted", async () => {
    const made = await ensure();
    const path = made.source.kind === "oci" ? made.source.path : "";
    const layer = made.built?.layers[0]?.digest.slice(7) ?? "";
    await truncate(join(path, "blobs", "sha256", layer), 10);
    expect(await listBuiltRuntimes(store())).toEqual([]);
    expect(await ensure()).toMatchObject({ cached: false });
    await writeFile(join(path, "runtime.json"), "{");
    expect(await ensure()).toMatchObject({ cached: false });
    expect(await listBuiltRuntimes(store())).toHaveLength(1);
  });

  test("another recipe is another directory; the old one is pruned", async () => {
    await ensure();
    catalogue["base"] = { ...catalogue["base"], cmd: ["sh"] };
    expect(await ensure()).toMatchObject({ cached: false });
    expect(await listBuiltRuntimes(store())).toHaveLength(2);
    expect(await pruneRuntimes(store(), catalogue)).toHaveLength(1);
    expect(await ensure()).toMatchObject({ cached: true });
  });

  test.each([
    ["E: Failed to fetch http://192.0.2.1/d Connection refused", "ERR_RUNTIME_FETCH"],
    ["E: cannot write: No space left on device", "ERR_DISK_FULL"],
    ["E: dpkg says no", "ERR_RUNTIME_BUILD"],
  ])("%s is %s and leaves nothing", async (said, code) => {
    await tool("mmdebstrap", `echo "${said}" >&2; touch half.tar; exit 1`);
    await expect(ensure()).rejects.toMatchObject({ code, why: said });
    expect(await readdir(store())).toEqual([".lock"]);
  });

  test("aborted in the middle it leaves nothing; what was left by a kill is removed", async () => {
    await mkdir(join(store(), ".tmp-0123"), { recursive: true });
    await tool("mmdebstrap", `echo "I: installing things"; sleep 60 & wait`);
    const controller = new AbortController();
    const making = ensure("base", {
      signal: controller.signal,
      progress: () => controller.abort(new Error("enough")),
    });
    await expect(making).rejects.toThrow("enough");
    expect(await readdir(store())).toEqual([".lock"]);
  });

  test.each([
    ["the next one", async (): Promise<unknown> => ensure()],
    ["the next daemon", async (): Promise<unknown> => sweepRuntimes(store())],
  ])("what a killed build left running is ended by %s", async (_who, sweep) => {
    const work = join(store(), ".tmp-dead", "work");
    await mkdir(work, { recursive: true });
    // As fakeroot's server does it: a session of its own, deaf to what happens to the build.
    const env = { ...process.env, TMPDIR: builderTemporary(work) };
    const orphan = spawn("sleep", ["61"], { detached: true, stdio: "ignore", env });
    const ended = once(orphan, "exit");
    await sweep();
    expect(await ended).toEqual([null, "SIGTERM"]);
    expect(await readdir(store())).not.toContain(".tmp-dead");
  });

  test("a build's temporary directory is named without links", async () => {
    const real = await mkdtemp(join(tmpdir(), "vmsan-linked-"));
    try {
      await mkdir(join(real, "there"));
      await symlink(join(real, "there"), join(real, "link"));
      expect(builderTemporary(join(real, "link"))).toBe(join(await realpath(real), "there/tmp"));
    } finally {
      await rm(real, { recursive: true });
    }
  });

  test("a failing layer above keeps the base", async () => {
    await expect(ensure("node22")).rejects.toMatchObject({ code: "ERR_RUNTIME_FETCH" });
    expect(await listBuiltRuntimes(store())).toMatchObject([{ name: "base" }]);
  });

  test("a runtime that is an image needs nothing", async () => {
    catalogue["go"] = { image: "golang:1", workdir: "/go", cmd: ["go"] };
    const found = await ensure("go");
    expect(found.source).toMatchObject({
      kind: "registry",
      reference: { repository: "library/golang" },
    });
    expect(found.config).toEqual({ workdir: "/go", cmd: ["go"] });
  });
});
