/** Node.js and npm as an image layer, from the npm registry's own packages by the npm client. */
import { access, chmod, mkdir, readdir, rename, symlink } from "node:fs/promises";
import { arch as machine } from "node:os";
import { join, relative } from "node:path";
import { VmsanError } from "../model/errors.ts";
import type { ProgressSink } from "../model/progress.ts";
import type { NodeRecipe } from "../schema/runtimes.ts";
import { run, runOk } from "../util/run.ts";

/** Raised whenever this file makes another layer of the same recipe. */
export const nodeBuilderVersion = 1;

/** What {@link makeNodeTar} takes. */
export interface NodeTarOptions {
  recipe: NodeRecipe;
  /** Path of the archive to write. */
  output: string;
  /** An existing directory of the build's own; the caller removes it. */
  scratch: string;
  signal?: AbortSignal;
  progress?: ProgressSink;
}

/** Fetch the newest package in a range, checked by npm against the registry's checksum. */
async function fetchPackage(
  name: string,
  range: string,
  dir: string,
  signal?: AbortSignal,
): Promise<{ archive: string; version: string }> {
  await mkdir(dir, { recursive: true });
  const args = [
    "pack",
    `${name}@${range}`,
    "--json",
    "--pack-destination",
    dir,
    "--ignore-scripts",
  ];
  const result = await run("npm", args, {
    cwd: dir,
    maxOutput: 16 << 20,
    timeoutMs: 15 * 60_000,
    ...(signal === undefined ? {} : { signal }),
  });
  const archive = (await readdir(dir)).find((file) => file.endsWith(".tgz"));
  const version = /-(\d+\.\d+\.\d+)\.tgz$/.exec(archive ?? "")?.[1];
  if (result.code !== 0 || archive === undefined || version === undefined) {
    throw new VmsanError({
      code: "ERR_RUNTIME_FETCH",
      message: `Cannot get ${name}@${range} from the npm registry`,
      why: result.stderr.trim().slice(-1000) || "npm gave no package.",
      fix: "Check `npm ping` and npm's registry and proxy settings; or use a bundle (vmsan setup --from DIR).",
    });
  }
  return { archive: join(dir, archive), version };
}

/** Unpack members of an npm package (all of them are below `package/`). */
async function unpack(archive: string, dir: string, members: readonly string[]): Promise<void> {
  await mkdir(dir, { recursive: true });
  const args = ["-xzf", archive, "-C", dir, "--strip-components=1", "--no-same-owner", ...members];
  await runOk("tar", args, "ERR_RUNTIME_BUILD");
}

/**
 * Write a layer with /usr/local/bin/{node,npm,npx}, the same bytes for the same versions.
 * @returns the versions in it
 * @throws ERR_SETUP_MISSING_BINARY without npm, ERR_RUNTIME_FETCH, ERR_RUNTIME_BUILD
 */
export async function makeNodeTar(options: NodeTarOptions): Promise<Record<string, string>> {
  const { recipe, output, scratch, signal, progress } = options;
  const binaries = `node-linux-${machine() === "arm64" ? "arm64" : "x64"}`;
  progress?.({
    phase: "setup",
    item: `node ${recipe.version}`,
    message: "fetching Node.js and npm",
  });
  const [node, npm] = await Promise.all([
    fetchPackage(binaries, recipe.version, join(scratch, "node-package"), signal),
    fetchPackage("npm", recipe.npm, join(scratch, "npm-package"), signal),
  ]);
  const local = join(scratch, "tree", "usr", "local");
  const modules = join(local, "lib", "node_modules");
  await unpack(node.archive, local, ["package/bin/node", "package/LICENSE"]);
  await unpack(npm.archive, join(modules, "npm"), ["package"]);
  const documents = join(local, "share", "doc", "node");
  await mkdir(documents, { recursive: true });
  await rename(join(local, "LICENSE"), join(documents, "LICENSE"));
  await chmod(join(local, "bin", "node"), 0o755);
  for (const name of ["npm", "npx"]) {
    await access(join(modules, "npm", "bin", `${name}-cli.js`));
    await symlink(`../lib/node_modules/npm/bin/${name}-cli.js`, join(local, "bin", name));
  }
  const tree = join(scratch, "tree");
  const names = (await readdir(tree, { recursive: true, withFileTypes: true }))
    .map((entry) => relative(tree, join(entry.parentPath, entry.name)))
    // The base has these: listed here, they would replace its modes and times.
    .filter((name) => !/^usr(\/local(\/(bin|lib|share))?)?$/.test(name))
    .sort();
  const args = ["--format=gnu", "--no-recursion", "--mtime=@1735689600"];
  args.push("--owner=0", "--group=0", "--numeric-owner", "--mode=u+rwX,go+rX,go-w");
  args.push("-cf", output, "-C", tree, "--verbatim-files-from", "--null", "-T", "-");
  await runOk("tar", args, "ERR_RUNTIME_BUILD", {
    input: names.join("\0"),
    ...(signal === undefined ? {} : { signal }),
  });
  return { node: node.version, npm: npm.version };
}
