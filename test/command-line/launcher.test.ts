/** bin/vmsan: whatever the user's words and environment, they reach the command line as they are. */
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";

let dir = "";
let vmsan = "";

/** A package whose command line says what it was given. */
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "vmsan-launcher-"));
  const root = join(dir, "package");
  vmsan = join(root, "bin/vmsan");
  cpSync(join(import.meta.dirname, "../../bin"), join(root, "bin"), { recursive: true });
  mkdirSync(join(root, "node_modules/.bin"), { recursive: true });
  symlinkSync(process.execPath, join(root, "node_modules/.bin/node"));
  mkdirSync(join(root, "dist/cli"), { recursive: true });
  writeFileSync(
    join(root, "dist/cli/main.js"),
    `const { argv, execArgv, env } = process;
     process.stdout.write(JSON.stringify({ words: argv.slice(2), execArgv, env }));`,
  );
  writeFileSync(join(root, "package.json"), "{}");
  // What Node.js would read if it took the options below for its own.
  for (const name of [".env", "node.config.json", "x"])
    writeFileSync(join(dir, name), "TAKEN=by-node\n");
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

interface Seen {
  words: string[];
  execArgv: string[];
  env: Record<string, string>;
}

/** What the command line sees of these words. */
function see(words: readonly string[], environment: Record<string, string> = {}): Seen {
  const { stdout, stderr, status } = spawnSync(vmsan, words, {
    cwd: dir,
    encoding: "utf8",
    env: { PATH: process.env["PATH"], HOME: dir, ...environment },
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  return JSON.parse(stdout) as Seen;
}

/** Every option that this Node.js knows, V8's among them. */
function allOptions(): string[] {
  const texts = ["--help", "--v8-options"].map((option) =>
    execFileSync(process.execPath, [option], { encoding: "utf8" }),
  );
  const options = new Set(process.allowedNodeEnvironmentFlags);
  for (const text of texts) {
    for (const [, option = ""] of text.matchAll(/(?<=^|[\s,])(--?[a-zA-Z][\w-]*)/gm)) {
      options.add(option);
    }
  }
  // Behind it come words, in front of it too: a case of its own.
  options.delete("--");
  return [...options];
}

const options = allOptions();
const guest = ["exec", "vm", "node", "app.js"];

test("the table of options has those that Node.js takes from anywhere", () => {
  expect(options.length).toBeGreaterThan(500);
  expect(options).toEqual(
    expect.arrayContaining(["--env-file", "--env-file-if-exists", "--experimental-config-file"]),
  );
});

test.each<[string, (words: string[]) => string[]]>([
  ["in front of", (words) => [...words, ...guest]],
  ["between", (words) => [...guest.slice(0, 2), ...words, ...guest.slice(2)]],
  ["behind", (words) => [...guest, ...words]],
  ["after -- behind", (words) => [...guest, "--", ...words]],
])("no option of Node.js %s the guest's words is taken by vmsan's own", (_where, place) => {
  const forms: ((option: string) => string[])[] = [
    (option) => [option],
    (option) => [`${option}=x`],
    (option) => [option, ".env"],
  ];
  for (const form of forms) {
    const words = place(options.flatMap(form));
    const seen = see(words);
    expect(seen.words).toEqual(words);
    expect(seen.execArgv).toEqual(["--disable-warning=ExperimentalWarning"]);
    expect(seen.env).not.toHaveProperty("TAKEN");
  }
});

test.each(options.filter((option) => /-file$|-file-|^-[ec]$|^--(test|run|watch)$/.test(option)))(
  "%s alone is the guest's",
  (option) => {
    for (const words of [[...guest, option, ".env"], [...guest, `${option}=.env`], [option]]) {
      expect(see(words).words).toEqual(words);
    }
  },
);

test("words of any kind arrive as they are", () => {
  const all = Array.from({ length: 255 }, (_, i) => String.fromCodePoint(i + 1)).join("");
  const words = [
    "",
    ":",
    "::a",
    " ",
    "$(x)",
    "`x`",
    "*",
    "\\",
    "'\"",
    "\n",
    "é",
    "𝒳",
    all,
    "--",
    "-",
  ];
  expect(see(words).words).toEqual(words);
  const many = Array.from({ length: 20_000 }, (_, i) => `-${i}`);
  expect(see(many).words).toEqual(many);
});

test.each([
  "--require ./not-there.cjs",
  "--import ./not-there.mjs",
  "--no-such-option",
  "--test",
  "--input-type=commonjs",
  "--inspect-brk=0",
  "",
])("NODE_OPTIONS=%j is not for vmsan, and reaches those it is for", (value) => {
  const { words, env } = see(guest, { NODE_OPTIONS: value });
  expect(words).toEqual(guest);
  expect(env["NODE_OPTIONS"]).toBe(value);
  expect(Object.keys(env).filter((name) => name.startsWith("VMSAN_"))).toEqual([]);
});

test("VMSAN_NODE_OPTIONS is for vmsan's Node.js", () => {
  writeFileSync(join(dir, "first.cjs"), "process.env.FIRST = process.env.NODE_OPTIONS;");
  const own = `--require ${join(dir, "first.cjs")}`;
  const { env } = see(guest, { VMSAN_NODE_OPTIONS: own, NODE_OPTIONS: "--users" });
  expect([env["FIRST"], env["NODE_OPTIONS"]]).toEqual([own, "--users"]);
});

test("a node's memory for its threads is one arena, and what it starts has its own again", () => {
  writeFileSync(join(dir, "first.cjs"), "process.env.FIRST = process.env.MALLOC_ARENA_MAX ?? '';");
  const first = { VMSAN_NODE_OPTIONS: `--require ${join(dir, "first.cjs")}` };
  const seen = (words: string[], more: object = {}): unknown[] => {
    const { env } = see(words, { ...first, ...more });
    expect(Object.keys(env).filter((name) => name.startsWith("VMSAN_A"))).toEqual([]);
    return [env["FIRST"], env["MALLOC_ARENA_MAX"]];
  };
  expect(seen(["node", "run"])).toEqual(["1", undefined]);
  expect(seen(["node", "run"], { MALLOC_ARENA_MAX: "4" })).toEqual(["4", "4"]);
  expect(seen(guest)).toEqual(["", undefined]);
});
