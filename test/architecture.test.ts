/** The shape of the code, checked: which folder may import which, and why. */
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { expect, test } from "vitest";

const src = resolve(import.meta.dirname, "../src");

/** Folder → folders it may import besides model/ and util/, with the reason. */
const allowed: Record<string, { may: string[]; because: string }> = {
  model: { may: [], because: "nouns import nothing" },
  util: { may: [], because: "helpers know no stage" },
  schema: { may: [], because: "validation is of outside data only" },
  oci: {
    may: ["schema", "layers"],
    because:
      "references become verified blobs; manifests are outside data; tar archives are read by one piece of code",
  },
  layers: { may: [], because: "blobs become one tree" },
  ext4: { may: [], because: "a tree becomes a disk image" },
  changes: {
    may: ["ext4", "layers", "oci"],
    because: "two file systems become a layer, and that with its image an image",
  },
  rootfs: { may: ["layers", "ext4"], because: "joins layers and ext4 behind one builder" },
  boot: {
    may: ["oci", "ext4"],
    because: "kernel, initramfs and the disk of modules are made of packages and files",
  },
  volumes: {
    may: ["ext4", "layers", "changes", "schema"],
    because: "a volume is a disk with a document, or what was on one as a tree of files",
  },
  vmm: { may: ["boot"], because: "a driver turns a VmSpec into a process" },
  agent: { may: [], because: "speaks to a byte stream, whoever opened it" },
  network: { may: [], because: "policy is data; effects stay here" },
  shares: { may: ["vmm"], because: "a file server beside a running VM" },
  snapshots: { may: ["vmm", "agent"], because: "freezes and thaws running VMs" },
  sandbox: {
    may: [
      "oci",
      "layers",
      "ext4",
      "rootfs",
      "boot",
      "vmm",
      "agent",
      "network",
      "snapshots",
      "volumes",
      "shares",
      "changes",
      "runtimes",
      "schema",
    ],
    because: "the only composer",
  },
  builds: {
    may: ["sandbox", "agent", "oci"],
    because: "drives a VM of the composer's by its agent, and serves it the store",
  },
  daemon: {
    may: ["sandbox", "builds", "schema", "agent", "doctor", "oci", "changes", "http"],
    because: "serves the composer over HTTP, and images that need no VM",
  },
  http: { may: [], because: "what servers share knows no server" },
  gateway: {
    may: ["client", "agent", "schema", "http", "network", "mcp", "containers"],
    because:
      "other protocols on the SDK's client and what the SDK exports of agent/, nothing below; addresses are parsed by one piece of code",
  },
  containers: {
    may: ["client", "agent"],
    because:
      "main processes of containers on the SDK's client, for every protocol that has containers",
  },
  kube: {
    may: ["schema"],
    because: "an API server is one whoever speaks to it; its replies are outside data",
  },
  node: {
    may: ["client", "agent", "schema", "http", "containers", "kube"],
    because: "a cluster's node on the SDK's client and what the SDK exports of agent/",
  },
  mcp: {
    may: ["client", "agent", "schema"],
    because: "tools for agents on the SDK's client and what the SDK exports of agent/",
  },
  cluster: {
    may: ["client", "agent", "kube", "node", "schema"],
    because: "pods as the client's VMs: calls as the client makes them, pods as nodes read them",
  },
  client: {
    may: ["agent", "network", "oci", "cluster"],
    because:
      "the one daemon client; streams are resumed end to end; policies are parsed and credentials kept by one piece of code",
  },
  runtimes: {
    may: ["schema", "oci"],
    because: "names become image sources; the catalogue is outside data",
  },
  setup: {
    may: ["oci", "rootfs", "boot", "vmm", "runtimes", "doctor"],
    because: "makes ready what the stages need, asks the doctor what is missing",
  },
  doctor: {
    may: ["vmm", "boot", "oci", "rootfs", "network", "runtimes"],
    because: "asks each stage how it is",
  },
  ui: {
    may: [],
    because: "a program for the browser: of the host's code it knows the nouns alone",
  },
  cli: {
    may: ["client", "agent", "doctor", "setup", "runtimes", "gateway", "mcp", "node"],
    because: "may do only what the SDK can",
  },
};

/** All TypeScript files below a directory. */
function files(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) return files(path);
    return /\.tsx?$/.test(entry.name) ? [path] : [];
  });
}

/** Absolute paths of the relative imports in a file. */
function imports(file: string): string[] {
  const text = readFileSync(file, "utf8");
  const found = text.matchAll(/(?:from|import\(|import)\s*"(\.{1,2}\/[^"]+)"/g);
  return [...found].map((match) => resolve(dirname(file), match[1] ?? ""));
}

const folderOf = (path: string): string => relative(src, path).split("/")[0] ?? "";

test("folders import only what the table allows", () => {
  const wrong: string[] = [];
  for (const file of files(src)) {
    if (file.endsWith(".test.ts")) continue;
    const folder = folderOf(file);
    const rule = allowed[folder];
    if (rule === undefined) continue; // src/index.ts
    for (const target of imports(file)) {
      const to = folderOf(target);
      if (to === folder || to === "model" || rule.may.includes(to)) continue;
      if (to === "util" && folder !== "model" && folder !== "ui") continue;
      wrong.push(`${relative(src, file)} imports ${to}/: ${folder}/ may not, ${rule.because}`);
    }
  }
  expect(wrong).toEqual([]);
});

test("the dashboard needs nothing of Node.js, and nobody takes anything of it", () => {
  const wrong: string[] = [];
  for (const file of files(src)) {
    const text = readFileSync(file, "utf8");
    if (folderOf(file) === "ui") {
      for (const [line] of text.matchAll(/^import [^;]*"node:[^"]+";/gm)) {
        wrong.push(`${relative(src, file)}: ${line}`);
      }
    } else if (imports(file).some((target) => folderOf(target) === "ui")) {
      wrong.push(`${relative(src, file)} imports ui/`);
    }
  }
  expect(wrong).toEqual([]);
});

test("no file imports itself by way of others", () => {
  const state = new Map<string, "open" | "done">();
  const circles: string[] = [];
  const visit = (file: string, way: readonly string[]): void => {
    if (state.get(file) === "open") {
      const circle = [...way.slice(way.indexOf(file)), file];
      circles.push(circle.map((each) => relative(src, each)).join(" → "));
    }
    if (state.has(file)) return;
    state.set(file, "open");
    for (const target of imports(file)) if (all.has(target)) visit(target, [...way, file]);
    state.set(file, "done");
  };
  const all = new Set(files(src));
  for (const file of all) visit(file, []);
  expect(circles).toEqual([]);
});

test("every folder has a rule and a first file that says what it is for", () => {
  for (const entry of readdirSync(src, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    const inside = files(join(src, entry.name));
    if (inside.length === 0) continue;
    expect(allowed[entry.name], `rule for ${entry.name}/`).toBeDefined();
    const headers = inside.map((file) => readFileSync(file, "utf8"));
    const said = headers.some(
      (text) => text.startsWith("/**") && text.slice(0, 200).includes(`${entry.name}/:`),
    );
    const first = entry.name === "model" || said;
    expect(first, `a file in ${entry.name}/ starts with a comment "${entry.name}/: …"`).toBe(true);
  }
});

test("no value is exported that no other file names", () => {
  const namedIn = new Map<string, number>();
  const places = ["src", "test", "bench", "scripts", "examples"];
  for (const file of places.flatMap((place) => files(join(src, "..", place)))) {
    for (const word of new Set(readFileSync(file, "utf8").match(/[\w$]+/g))) {
      namedIn.set(word, (namedIn.get(word) ?? 0) + 1);
    }
  }
  const value = /^export (?:async )?(?:const|function\*?|class) ([\w$]+)/gm;
  const alone = files(src).flatMap((file) =>
    [...readFileSync(file, "utf8").matchAll(value)]
      .filter(([, name = ""]) => (namedIn.get(name) ?? 0) < 2)
      .map(([line]) => `${relative(src, file)}: ${line}`),
  );
  expect(alone).toEqual([]);
});

/** Most source files side by side, tests apart: more want rooms of their own. */
const FOLDER_LIMIT = 20;

/** All directories below and with this one. */
function folders(dir: string): string[] {
  const inner = readdirSync(dir, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return [dir, ...inner.flatMap((entry) => folders(join(dir, entry.name)))];
}

test("no folder holds more than twenty source files", () => {
  const wrong: string[] = [];
  for (const folder of folders(src)) {
    const name = relative(src, folder);
    const count = readdirSync(folder).filter(
      (file) => /\.tsx?$/.test(file) && !file.endsWith(".test.ts"),
    ).length;
    if (count > FOLDER_LIMIT)
      wrong.push(`${name}/ holds ${count} source files, at most ${FOLDER_LIMIT}: make rooms`);
  }
  for (const folder of folders(join(src, "../test/e2e"))) {
    const count = readdirSync(folder).filter((file) => file.endsWith(".ts")).length;
    if (count > FOLDER_LIMIT)
      wrong.push(`${relative(src, folder)} holds ${count} end-to-end tests: make rooms`);
  }
  expect(wrong).toEqual([]);
});

test("no empty catch, no shell, no schema library in forty languages", () => {
  const wrong: string[] = [];
  for (const file of files(src)) {
    const text = readFileSync(file, "utf8");
    if (/catch\s*(\([^)]*\))?\s*\{\s*\}/.test(text)) wrong.push(`${file}: empty catch`);
    if (/shell:\s*true|\bexecSync\(|\bexec\(`/.test(text)) wrong.push(`${file}: shell`);
    // As an object the library is whole in the bundle: with every language's messages, four times as large.
    if (/import \{ z \} from "zod"/.test(text)) wrong.push(`${file}: import * as z`);
  }
  expect(wrong).toEqual([]);
});
