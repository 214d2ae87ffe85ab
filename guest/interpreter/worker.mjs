/**
 * Runs JavaScript and TypeScript for workers.py: paths of files with code come by one descriptor, the lines that its clients
 * are to read go by another. What code is, is the business of Node.js's own REPL: declarations stay, `await` may
 * stand anywhere.
 */
import { readFileSync, writeSync } from "node:fs";
import module from "node:module";
import { Socket } from "node:net";
import { createInterface } from "node:readline";
import { start } from "node:repl";
import { PassThrough } from "node:stream";
import { inspect } from "node:util";

const [told, answers] = process.argv.slice(2).map(Number);
process.argv.splice(1);

const repl = start({
  input: new PassThrough(),
  output: new PassThrough().resume(),
  prompt: "",
  terminal: false,
  useGlobal: true,
  breakEvalOnSigint: true,
});
/** Shows an error that is of no execution. */
const show = (error) => console.error(error);
/** Told of what the REPL catches: ends the execution that is under way. */
let thrown = show;
process.on("uncaughtException", show);
process.on("unhandledRejection", show);
// The REPL of some releases tells errors to a domain of its own and to nobody else.
repl.eval("process.domain\n", repl.context, "domain", (_error, domain) => {
  domain?.removeAllListeners("error").on("error", (error) => thrown(error));
});

/** Breaks off code that waits for something. */
const interrupt = () => {
  if (thrown !== show) repl.emit("SIGINT");
};
process.on("SIGINT", interrupt);
// Code may wait for what never comes.
setInterval(() => undefined, 2 ** 31 - 1);

/** What the REPL makes of code. @throws what the code throws */
async function evaluate(code) {
  try {
    return await new Promise((resolve, reject) => {
      thrown = reject;
      // What computes is broken off by the REPL itself, unless somebody else listens.
      process.off("SIGINT", interrupt);
      try {
        repl.eval(`${code}\n`, repl.context, "code", (error, result) => {
          // What is unfinished would be asked for more on a terminal.
          if (error) reject(error.err ?? error);
          else resolve(result);
        });
      } finally {
        process.on("SIGINT", interrupt);
      }
    });
  } finally {
    thrown = show;
  }
}

/** Resolves when a stream has handed on all that was written to it. */
async function flushed(stream) {
  await new Promise((resolve) => stream.write("", resolve));
}

const IMPORT =
  /(^|;)([ \t]*)import\s+(?:([\w$]+)\s*,?\s*)?(?:\*\s*as\s+([\w$]+)\s*|\{([^}]*)\}\s*)?(?:from\s*)?(["'])([^"'\n]+)\6[ \t]*;?/gm;

/** Imports as the REPL takes them. */
function dynamic(code) {
  return code.replace(IMPORT, (_all, before, indent, main, all, named, _quote, from) => {
    const loaded = `await import(${JSON.stringify(from)})`;
    const parts = [
      ...(main === undefined ? [] : [`default: ${main}`]),
      ...(named ?? "").split(",").flatMap((part) => {
        const name = part.trim().replace(/\s+as\s+/, ": ");
        return name === "" ? [] : [name];
      }),
    ];
    const lines = [
      ...(all === undefined ? [] : [`const ${all} = ${loaded};`]),
      ...(parts.length === 0 ? [] : [`const { ${parts.join(", ")} } = ${loaded};`]),
    ];
    return before + indent + (lines.join(" ") || `${loaded};`);
  });
}

/** An error as clients read it. */
function failure(error) {
  if (!(error instanceof Error)) {
    const value = inspect(error);
    return { type: "error", name: "Error", value, traceback: value };
  }
  const { name, message, stack } = error;
  return { type: "error", name: String(name), value: String(message), traceback: String(stack) };
}

/** Run code. @returns the lines that it ends with */
async function run({ code, language, envs }) {
  const before = Object.entries(envs).map(([name]) => [name, process.env[name]]);
  Object.assign(process.env, envs);
  try {
    const plain =
      language === "typescript" ? module.stripTypeScriptTypes(code, { mode: "transform" }) : code;
    const value = await evaluate(dynamic(plain));
    if (value === undefined) return [];
    const text = typeof value === "string" ? value : inspect(value);
    return [{ type: "result", is_main_result: true, text }];
  } catch (error) {
    return [failure(error)];
  } finally {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  }
}

// A file's stream would keep a thread in a call of the kernel, and the process from ending with it.
const input = new Socket({ fd: told, readable: true, writable: false });
for await (const path of createInterface({ input })) {
  const lines = await run(JSON.parse(readFileSync(path, "utf8")));
  await Promise.all([flushed(process.stdout), flushed(process.stderr)]);
  const bytes = Buffer.from(`${JSON.stringify(lines)}\n`);
  for (let at = 0; at < bytes.length; ) at += writeSync(answers, bytes, at);
}
process.exit();
