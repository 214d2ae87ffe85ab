"use strict";
// Second step of bin/vmsan, kept so plain that any Node.js can read it: undoes what kept Node.js from
// reading the user's words and environment, refuses one that is too old in words, switches the compile
// cache on (it halves the start from sources), goes on in the real program.
const { existsSync } = require("node:fs");
const nodeModule = require("node:module");
const { homedir } = require("node:os");
const { join } = require("node:path");

const MIN = [22, 18];

process.argv = process.argv.map((word, i) => (i > 1 && word.startsWith(":") ? word.slice(1) : word));
delete process.env.NODE_OPTIONS;
if (process.env.VMSAN_KEPT_NODE_OPTIONS !== undefined) {
  process.env.NODE_OPTIONS = process.env.VMSAN_KEPT_NODE_OPTIONS;
  delete process.env.VMSAN_KEPT_NODE_OPTIONS;
}

// For client/tracing/timeline.ts, and nothing that is started from here.
globalThis.vmsanBegan = process.env.VMSAN_BEGAN;
delete process.env.VMSAN_BEGAN;

if (process.env.VMSAN_ARENA !== undefined) {
  delete process.env.MALLOC_ARENA_MAX;
  delete process.env.VMSAN_ARENA;
}

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major < MIN[0] || (major === MIN[0] && minor < MIN[1])) {
  console.error(
    `vmsan: Node.js ${process.versions.node} (${process.execPath}) is too old; it needs ${MIN.join(".")} or newer.\n` +
      "  Fix: in a checkout run `npm install`; else run install.sh, which brings its own Node.js.",
  );
  process.exit(1);
}

const root = join(__dirname, "..");
const source = join(root, "src/cli/main.ts");
if (existsSync(source)) {
  nodeModule.enableCompileCache(join(root, ".cache/compile"));
  void import(source);
} else {
  // Asking for the version of a fresh installation must not make a directory in the home.
  const home = process.env.VMSAN_DIR || join(homedir(), ".vmsan");
  if (existsSync(home)) nodeModule.enableCompileCache(join(home, "cache/compile"));
  void import(join(root, "dist/cli/main.js"));
}
