/** The files in which modules are looked up, as depmod(8) makes them, from the modules themselves. */
import { encodeIndex, type IndexEntry } from "./trie.ts";

/** What of a module the lookup needs. */
export interface ModuleFacts {
  /** Name with underscores. */
  name: string;
  /** Path below /lib/modules/VERSION, e.g. `kernel/fs/fuse/fuse.ko`. */
  path: string;
  /** Names of the modules it needs directly. */
  depends: string[];
  /** Patterns of what it serves: `char-major-10-229`, `fs-fuse`, … */
  aliases: string[];
  /** `pre: a b post: c`. */
  softdeps: string[];
}

/** What is built into the kernel. */
export interface BuiltinFacts {
  names: string[];
  /** Pairs of alias and name. */
  aliases: [alias: string, name: string][];
}

/** Names are compared with underscores; brackets of a pattern stay as they are. */
function normalized(alias: string): string {
  return alias.replaceAll(/\[[^\]]*\]|-/g, (part) => (part === "-" ? "_" : part));
}

/** The modules that one needs, all the way down: those that others need come later. */
function allDependencies(
  start: ModuleFacts,
  byName: ReadonlyMap<string, ModuleFacts>,
): ModuleFacts[] {
  const order: ModuleFacts[] = [];
  const seen = new Set<ModuleFacts>([start]);
  const visit = (module: ModuleFacts): void => {
    for (const name of module.depends) {
      const need = byName.get(name);
      if (need === undefined || seen.has(need)) continue;
      seen.add(need);
      visit(need);
      order.push(need);
    }
  };
  visit(start);
  return order.reverse();
}

/** Lines of modules.devname: nodes of /dev by which a module is loaded when one is opened. */
function deviceNodes(module: ModuleFacts): string[] {
  let node: string | undefined;
  let device: string | undefined;
  for (const alias of module.aliases) {
    if (alias.startsWith("devname:")) node ??= alias.slice("devname:".length);
    const major = /^(char|block)-major-(\d+)-(\d+)$/.exec(alias);
    if (major !== null) device ??= `${major[1]?.[0]}${major[2]}:${major[3]}`;
  }
  return node === undefined || device === undefined ? [] : [`${module.name} ${node} ${device}`];
}

/** A file of these lines after a comment. */
function lines(about: string, content: readonly string[]): Buffer {
  return Buffer.from(`# ${about}\n${content.map((line) => `${line}\n`).join("")}`);
}

/**
 * The lookup files of a kernel's modules by name: `modules.dep`, `modules.alias`, … and kmod's
 * binary forms of them.
 * @param modules in the order of preference (modules.order)
 */
export function lookupFiles(
  modules: readonly ModuleFacts[],
  builtin: BuiltinFacts,
): Map<string, Buffer> {
  const byName = new Map(modules.map((module) => [module.name, module]));
  const dependencies: IndexEntry[] = modules.map((module, priority) => {
    const needs = allDependencies(module, byName).map(({ path }) => path);
    return { key: module.name, value: [`${module.path}:`, ...needs].join(" "), priority };
  });
  const aliases = modules.flatMap(({ name, aliases: own }, priority) =>
    own.map((key): IndexEntry => ({ key, value: name, priority })),
  );
  const text = ({ key, value }: IndexEntry): string => `alias ${key} ${value}`;
  const index = (entries: readonly IndexEntry[]): Buffer =>
    encodeIndex(entries.map((entry) => ({ ...entry, key: normalized(entry.key) })));
  return new Map([
    ["modules.dep", Buffer.from(dependencies.map(({ value }) => `${value}\n`).join(""))],
    ["modules.dep.bin", encodeIndex(dependencies)],
    ["modules.alias", lines("Aliases of the modules themselves.", aliases.map(text))],
    ["modules.alias.bin", index(aliases)],
    [
      "modules.softdep",
      lines(
        "Modules to be loaded before or after others where they are there.",
        modules.flatMap(({ name, softdeps }) => softdeps.map((soft) => `softdep ${name} ${soft}`)),
      ),
    ],
    [
      "modules.devname",
      lines("Device nodes that load a module when they are opened.", modules.flatMap(deviceNodes)),
    ],
    ["modules.symbols", lines("Aliases of exported symbols: none.", [])],
    ["modules.symbols.bin", encodeIndex([])],
    [
      "modules.builtin.bin",
      encodeIndex(builtin.names.map((key) => ({ key, value: "", priority: 0 }))),
    ],
    [
      "modules.builtin.alias.bin",
      index(builtin.aliases.map(([key, value]) => ({ key, value, priority: 0 }))),
    ],
  ]);
}
