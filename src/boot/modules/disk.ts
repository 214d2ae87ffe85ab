/** A kernel's modules as an ext4 image: `VERSION/kernel/…/*.ko`, unpacked, and the lookup files. */
import { readFile, stat } from "node:fs/promises";
import { createHash } from "node:crypto";
import { join, relative } from "node:path";
import { BLOCK_SIZE, Ext4Writer, ImageFile } from "../../ext4/ext4.ts";
import { errnoOf } from "../../model/errors.ts";
import { FileTree, PLAIN_DIRECTORY, ROOT } from "../../util/file-tree/file-tree.ts";
import {
  builtinModules,
  dependenciesOf,
  indexModules,
  modinfo,
  readModule,
  type ModuleFile,
} from "../kernel-modules.ts";
import { lookupFiles, type BuiltinFacts, type ModuleFacts } from "./depmod.ts";

/** Label by which the guest agent knows the disk. */
const MODULES_LABEL = "vmsan-modules";

/** Files of a /lib/modules/VERSION that are taken as they are. */
const KEPT = ["modules.builtin", "modules.builtin.modinfo", "modules.order"];
/** Room for what a file needs besides its blocks, and for the whole, in bytes. */
const PER_FILE = 1024;
const SPARE = 4 << 20;

/** A file of the directory; undefined when it is not there. */
async function optional(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Modules in the order in which the kernel's makers prefer them, where they say. */
async function inOrder(
  dir: string,
  index: Map<string, ModuleFile>,
): Promise<[string, ModuleFile][]> {
  const order = (await optional(join(dir, "modules.order")))?.toString("utf8").split("\n") ?? [];
  const places = new Map(order.map((line, place) => [line, place]));
  const placeOf = (file: ModuleFile): number => places.get(pathOnDisk(dir, file)) ?? places.size;
  return [...index].sort(
    ([a, one], [b, other]) => placeOf(one) - placeOf(other) || (a < b ? -1 : 1),
  );
}

/** Path of a module below VERSION/, without its compression. */
function pathOnDisk(dir: string, file: ModuleFile): string {
  return relative(dir, file.path).replace(/\.(xz|zst|gz)$/, "");
}

/** What modules.builtin.modinfo (records `name.key=value`, NUL between them) says of aliases. */
function builtinAliases(info: Buffer | undefined): [string, string][] {
  const records = info?.toString("latin1").split("\0") ?? [];
  return records.flatMap((record): [string, string][] => {
    const found = /^([^.]+)\.alias=(.+)$/s.exec(record);
    return found === null ? [] : [[found[2] ?? "", found[1] ?? ""]];
  });
}

/** Add a file to the tree, with the directories above it. */
function addFile(writer: Ext4Writer, tree: FileTree, path: string, bytes: Buffer): void {
  const names = path.split("/");
  const name = names.pop() ?? "";
  let directory = ROOT;
  for (const each of names) {
    const there = tree.find(directory, each);
    if (there === 0) {
      const made = tree.add(PLAIN_DIRECTORY);
      tree.link(directory, each, made);
      directory = made;
    } else directory = tree.child(there);
  }
  const { data } = writer;
  data.begin(bytes.length);
  data.write(0, bytes, 0, bytes.length);
  const node = tree.add({ ...PLAIN_DIRECTORY, kind: "file", mode: 0o644, size: bytes.length });
  tree.contents[node] = data.end();
  tree.link(directory, name, node);
}

/**
 * Make the disk of a /lib/modules/VERSION directory; the same directory gives the same bytes.
 * @param release `uname -r` of the kernel
 * @param output path that does not exist yet; synced. After a failure it is no file system
 */
export async function writeModulesDisk(
  dir: string,
  release: string,
  output: string,
  signal?: AbortSignal,
): Promise<void> {
  const modules = await inOrder(dir, await indexModules(dir));
  // Packed modules grow by about four.
  let bytes = SPARE;
  for (const [, file] of modules) {
    const { size } = await stat(file.path);
    bytes += (file.compression === "none" ? size : size * 6) + BLOCK_SIZE + PER_FILE;
  }
  const uuid = createHash("sha256").update(`${MODULES_LABEL} ${release}`).digest().subarray(0, 16);
  const sizeBytes = Math.ceil((bytes * 1.05) / BLOCK_SIZE) * BLOCK_SIZE;
  const image = new ImageFile(output, sizeBytes, 0o644);
  try {
    const options = { sizeBytes, journal: false, label: MODULES_LABEL, uuid, hashSeed: uuid };
    const writer = new Ext4Writer(image, options);
    const tree = new FileTree();
    const facts: ModuleFacts[] = [];
    for (const [name, file] of modules) {
      signal?.throwIfAborted();
      const content = await readModule(file, signal);
      const path = pathOnDisk(dir, file);
      addFile(writer, tree, `${release}/${path}`, content);
      facts.push({
        name,
        path,
        depends: dependenciesOf(content),
        aliases: modinfo(content, "alias"),
        softdeps: modinfo(content, "softdep"),
      });
    }
    const kept = new Map<string, Buffer>();
    for (const name of KEPT) {
      const content = await optional(join(dir, name));
      if (content !== undefined) kept.set(name, content);
    }
    const builtin: BuiltinFacts = {
      names: [...(await builtinModules(dir))],
      aliases: builtinAliases(kept.get("modules.builtin.modinfo")),
    };
    for (const [name, content] of [...kept, ...lookupFiles(facts, builtin)]) {
      addFile(writer, tree, `${release}/${name}`, content);
    }
    writer.finish(tree);
    image.sync();
  } finally {
    image.close();
  }
}
