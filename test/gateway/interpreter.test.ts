/** The code interpreter's server (guest/interpreter) with a real kernel, here instead of in a guest. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { freePort } from "../fixtures/ports.ts";
import { pythonWith } from "../fixtures/venv.ts";

const LIMIT_MS = 240_000;

const home = realpathSync(mkdtempSync(join(tmpdir(), "vmsan-interpreter-")));
let server: ChildProcess;
let url = "";

beforeAll(async () => {
  const python = await pythonWith("interpreter-2");
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  const program = resolve(import.meta.dirname, "../../guest/interpreter/server.py");
  server = spawn(python, [program, String(port)], {
    env: {
      // Node.js of its own, for JavaScript.
      PATH: `${dirname(process.execPath)}:${process.env["PATH"]}`,
      HOME: home,
      PYTHONDONTWRITEBYTECODE: "1",
      FROM_CREATE: "created",
    },
    stdio: "ignore",
    detached: true,
  });
  const deadline = Date.now() + LIMIT_MS;
  for (;;) {
    const answer = await fetch(`${url}/health`).catch(() => undefined);
    if (answer?.ok === true) break;
    if (Date.now() > deadline) throw new Error("the server does not answer");
    await new Promise((next) => setTimeout(next, 100));
  }
}, 2 * LIMIT_MS);

afterAll(async () => {
  if (server?.pid !== undefined) {
    const ended = once(server, "close");
    // Its kernels too.
    process.kill(-server.pid, "SIGKILL");
    await ended;
  }
  rmSync(home, { recursive: true, force: true });
});

type Line = Record<string, unknown>;

/** Lines of an execution; what it was refused with otherwise. */
async function execute(body: object): Promise<Line[] | string> {
  const answer = await fetch(`${url}/execute`, { method: "POST", body: JSON.stringify(body) });
  const text = await answer.text();
  if (!answer.ok) return `${answer.status} ${text}`;
  return text
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Line);
}

/** Begin an execution, and leave once it has said that it is up. */
async function leave(body: object): Promise<void> {
  const answer = await fetch(`${url}/execute`, { method: "POST", body: JSON.stringify(body) });
  let said = "";
  // Leaving the loop ends the connection.
  for await (const part of answer.body ?? []) {
    said += Buffer.from(part).toString();
    if (said.includes('"up')) return;
  }
  throw new Error(`it ended: ${said}`);
}

/** The main result's text. */
async function value(code: string, more: object = {}): Promise<unknown> {
  const lines = await execute({ code, ...more });
  if (typeof lines === "string") return lines;
  return lines.find((line) => line["is_main_result"] === true)?.["text"];
}

/** All of its standard output. */
async function printed(code: string, more: object = {}): Promise<string> {
  const lines = await execute({ code, ...more });
  return ofType(lines, "stdout")
    .map(({ text }) => text)
    .join("");
}

/** Those of one kind. */
function ofType(lines: Line[] | string, type: string): Line[] {
  return typeof lines === "string" ? [] : lines.filter((line) => line["type"] === type);
}

test(
  "output, results, errors and tables are told as they come; state stays",
  async () => {
    const first = await execute({
      code: "import sys; print('a'); print('b', file=sys.stderr); 'it'",
    });
    expect(ofType(first, "stdout")).toMatchObject([{ text: "a\n" }]);
    expect(ofType(first, "stderr")).toMatchObject([{ text: "b\n" }]);
    expect(ofType(first, "result")).toMatchObject([{ text: "it", is_main_result: true }]);
    expect(ofType(first, "number_of_executions")).toMatchObject([{ execution_count: 1 }]);
    const failed = await execute({ code: "x = 5\n1/0" });
    expect(ofType(failed, "error")).toMatchObject([
      { name: "ZeroDivisionError", value: "division by zero", traceback: expect.any(String) },
    ]);
    expect(await value("x")).toBe("5");
    const table = await execute({
      code: "import pandas as pd; pd.DataFrame({'a': [1, 2], 'b': ['x', None]})",
    });
    expect(ofType(table, "result")).toMatchObject([
      { data: { a: [1, 2], b: ["x", null] }, html: expect.stringContaining("<table") },
    ]);
    expect(await value("[n for n in dir() if 'vmsan' in n]")).toBe("[]");
    expect(JSON.stringify(failed)).not.toContain("\\u001b");
    const json = await execute({ code: "import numpy as np; {'a': [1, np.float64(2)], 3: None}" });
    expect(ofType(json, "result")).toMatchObject([{ json: { a: [1, 2], 3: null } }]);
    for (const none of ["[float('nan')]", "{(1, 2): 3}", "l = [1]; l.append(l); l", "[object()]"]) {
      const [result] = ofType(await execute({ code: none }), "result");
      expect([none, result?.["json"], typeof result?.["text"]]).toEqual([
        none,
        undefined,
        "string",
      ]);
    }
    const pictures = await execute({
      code: "from PIL import Image; i = Image.new('RGB', (2, 2)); i.save('one.png'); i.show(); print(Image.open('one.png').size)",
    });
    expect(ofType(pictures, "result").map(({ png }) => typeof png)).toEqual(["string", "string"]);
    expect(ofType(pictures, "stdout")).toMatchObject([{ text: "(2, 2)\n" }]);
    expect((await value("list(range(5000))")) as string).toMatch(/^\[0,[^]* 4999\]$/);
  },
  LIMIT_MS,
);

test(
  "variables of one execution are gone after it",
  async () => {
    const more = { env_vars: { ONCE: 'it\'s "so"\\n' } };
    expect(
      await value(
        "import os; print(os.environ['ONCE']); os.environ['ONCE'] == \"it's \\\"so\\\"\\\\n\"",
        more,
      ),
    ).toBe("True");
    expect(await value("os.environ.get('ONCE', 'none')")).toBe("none");
  },
  LIMIT_MS,
);

test(
  "an execution that nobody waits for is interrupted; a kernel that ends is said, and replaced",
  async () => {
    await leave({ code: "import time; print('up', flush=True); time.sleep(3600)" });
    expect(await value("6 * 7")).toBe("42");
    // It lets the first interruption pass.
    const stubborn =
      "for _ in range(2):\n  try: time.sleep(3600)\n  except KeyboardInterrupt: pass";
    await leave({ code: `print('up', flush=True)\n${stubborn}` });
    expect(await value("6 * 8")).toBe("48");
    const ended = await execute({ code: "import os; os._exit(3)" });
    expect(ofType(ended, "error")).toMatchObject([{ name: "UnexpectedEndOfExecution" }]);
    expect(await value("'again'")).toBe("again");
  },
  LIMIT_MS,
);

test(
  "bash keeps its state, tells outputs apart, is interrupted and replaced",
  async () => {
    const bash = { language: "bash" };
    const first = await execute({ code: "x=5; cd /; echo out; echo err >&2; read y", ...bash });
    expect(ofType(first, "stdout")).toMatchObject([{ text: "out\n" }]);
    expect(ofType(first, "stderr")).toMatchObject([{ text: "err\n" }]);
    expect(ofType(first, "error")).toMatchObject([{ name: "ExitStatus", value: "1" }]);
    const once = { env_vars: { ONCE: "it's\n$x", FROM_CREATE: "other" }, ...bash };
    expect(await printed("echo $x $PWD; printf '%s|' \"$ONCE\" $FROM_CREATE", once)).toBe(
      "5 /\nit's\n$x|other|",
    );
    expect(await printed("echo ${ONCE-none} $FROM_CREATE", bash)).toBe("none created\n");
    expect(await printed("seq 100000 | tail -n 1; head -c 200000 /dev/zero | wc -c", bash)).toBe(
      "100000\n200000\n",
    );
    await leave({ code: "echo up; while :; do :; done", ...bash });
    expect(await printed("echo $x", bash)).toBe("5\n");
    const ended = await execute({ code: "exit 3", ...bash });
    expect(ofType(ended, "error")).toMatchObject([{ name: "UnexpectedEndOfExecution" }]);
    expect(await printed("echo [$x]", bash)).toBe("[]\n");
  },
  LIMIT_MS,
);

test(
  "JavaScript and TypeScript: results, imports, await, errors, an interruption",
  async () => {
    const js = { language: "js" };
    expect(await printed("const a = 1; console.log('Hello')", js)).toBe("Hello\n");
    expect(await value("let b = await Promise.resolve('it'); b + a", js)).toBe("it1");
    expect(
      await value(
        "import { readFileSync as read } from 'fs'\nimport os from 'os'\ntypeof read + typeof os",
        js,
      ),
    ).toBe("functionobject");
    expect(await value("({ a, cwd: process.cwd() })", js)).toBe(`{ a: 1, cwd: '${home}' }`);
    const once = { env_vars: { ONCE: "x" }, ...js };
    expect(await value("process.env.ONCE", once)).toBe("x");
    expect(await value("String(process.env.ONCE)", js)).toBe("undefined");
    for (const code of ["throw new TypeError('no')", "await Promise.reject(new TypeError('no'))"])
      expect(ofType(await execute({ code, ...js }), "error")).toMatchObject([
        { name: "TypeError", value: "no", traceback: expect.stringContaining("no") },
      ]);
    expect(await printed("process.stdout.write('x'.repeat(300000)); 1", js)).toHaveLength(300_000);
    for (const code of ["while (true) {}", "await new Promise(() => undefined)"]) {
      await leave({ code: `console.log('up'); ${code}`, ...js });
      expect(await value("a", js)).toBe("1");
    }
    const ts = "enum E { A = 3 }\nconst n: number = E.A; n as number";
    expect(await value(ts, { language: "typescript" })).toBe("3");
    expect(await value("typeof a", { language: "ts" })).toBe("undefined");
    const ended = await execute({ code: "process.exit(1)", ...js });
    expect(ofType(ended, "error")).toMatchObject([{ name: "UnexpectedEndOfExecution" }]);
    expect(await value("typeof a", js)).toBe("undefined");
  },
  LIMIT_MS,
);

test(
  "contexts are apart: made, listed, restarted, removed",
  async () => {
    const made = await fetch(`${url}/contexts`, {
      method: "POST",
      body: JSON.stringify({ cwd: "/tmp" }),
    });
    const { id, ...rest } = (await made.json()) as { id: string };
    expect(rest).toEqual({ language: "python", cwd: "/tmp" });
    const there = { context_id: id };
    expect(await value("import os; y = 1; os.getcwd()", there)).toBe("/tmp");
    expect(await value("'y' in dir()")).toBe("False");
    const listed = (await (await fetch(`${url}/contexts`)).json()) as Line[];
    // The first two are there from the start, others since they were used.
    const views = listed.map(({ language, cwd }) => [language, cwd]);
    expect(views.slice(0, 2)).toEqual([
      ["python", home],
      ["javascript", home],
    ]);
    expect(views.at(-1)).toEqual(["python", "/tmp"]);
    expect((await fetch(`${url}/contexts/${id}/restart`, { method: "POST" })).status).toBe(200);
    expect(await value("'y' in dir()", there)).toBe("False");
    expect((await fetch(`${url}/contexts/${id}`, { method: "DELETE" })).status).toBe(200);
    expect(await execute({ code: "1", ...there })).toMatch(/^404 .*not found/);
  },
  LIMIT_MS,
);

test.each([
  [{ code: 1 }, /^422 /],
  [{}, /^422 code is missing/],
  [{ code: "1", env_vars: { A: 1 } }, /^422 /],
  [
    { code: "1", language: "ruby" },
    /^500 Language ruby is not offered here: bash, javascript, python, typescript are$/,
  ],
  [{ code: "1", language: "python", context_id: "x" }, /^400 /],
  [{ code: "1", context_id: "x" }, /^404 /],
])("%j is refused in words", async (body, words) => {
  expect(await execute(body)).toMatch(words);
});
