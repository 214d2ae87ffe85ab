/** The package as it is published, built from this checkout. */
import { cp, readdir } from "node:fs/promises";
import { arch } from "node:os";
import { join, resolve } from "node:path";
import { runOk } from "../../src/util/run.ts";

const root = resolve(import.meta.dirname, "../..");

/** Build it in an empty directory of the caller's. @returns the package file's path */
export async function buildPackage(dir: string): Promise<string> {
  const staged = join(dir, "package");
  const machine = arch() === "arm64" ? "aarch64" : "x86_64";
  await runOk(join(root, "scripts/build.sh"), [join(staged, "dist"), machine], "ERR_TEST");
  for (const name of [
    "bin",
    "docs",
    "install.sh",
    "package.json",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
  ]) {
    await cp(join(root, name), join(staged, name), { recursive: true, verbatimSymlinks: true });
  }
  await runOk(
    "npm",
    ["pack", "--silent", "--ignore-scripts", "--pack-destination", dir],
    "ERR_TEST",
    { cwd: staged },
  );
  return join(dir, (await readdir(dir)).find((name) => name.endsWith(".tgz")) ?? "");
}
