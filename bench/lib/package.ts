/** vmsan as users have it: bundled, since what runs from TypeScript takes some 20 MB more and starts later. */
import { spawnSync } from "node:child_process";
import { cpSync, symlinkSync } from "node:fs";
import { join, resolve } from "node:path";

const root = resolve(import.meta.dirname, "../..");

/** Bundle the programs of this checkout. @param dir of its own; it is there @returns its bin/vmsan */
export function packagedVmsan(dir: string): string {
  const made = spawnSync(process.execPath, [join(root, "scripts/bundle.ts"), join(dir, "dist")], {
    encoding: "utf8",
  });
  if (made.status !== 0) throw new Error(`scripts/bundle.ts: ${made.stderr}`);
  cpSync(join(root, "bin"), join(dir, "bin"), { recursive: true });
  cpSync(join(root, "package.json"), join(dir, "package.json"));
  symlinkSync(join(root, "node_modules"), join(dir, "node_modules"));
  return join(dir, "bin/vmsan");
}
