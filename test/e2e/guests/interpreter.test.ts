/**
 * The published package `@e2b/code-interpreter`, unmodified, against a gateway and a guest that really boots.
 * Its runtime takes minutes to make (pandas, matplotlib), so that is done with VMSAN_TEST_INTERPRETER=1 alone; the
 * server that runs in it is tried in every run by guest/interpreter/server.test.ts.
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { Sandbox } from "@e2b/code-interpreter";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Keys } from "../../../src/gateway/access/keys.ts";
import { startGateway } from "../../../src/gateway/gateway.ts";
import type { ListeningGateway } from "../../../src/gateway/http/server.ts";
import { layoutOf } from "../../../src/util/paths.ts";
import { preparedDir, root } from "../support.ts";

const asked = process.env["VMSAN_TEST_INTERPRETER"] === "1";
let gateway: ListeningGateway;
let keys: Keys;
let keyId = "";
let sandbox: Sandbox;

beforeAll(async () => {
  if (!asked) {
    process.stderr.write(
      "skipped: the code interpreter in a guest; VMSAN_TEST_INTERPRETER=1 makes its runtime and runs it\n",
    );
    return;
  }
  // Clients wait five minutes for an answer, and making it takes longer on a slow machine.
  await promisify(execFile)(join(root, "bin/vmsan"), ["setup", "--runtime", "code-interpreter"], {
    env: { ...process.env, VMSAN_DIR: preparedDir },
  });
  gateway = await startGateway({ dir: preparedDir, listen: "127.0.0.1:0" });
  keys = new Keys(layoutOf(preparedDir).gateway);
  const made = await keys.create({ project: `interpreter-${process.pid}` });
  keyId = made.key.id;
  sandbox = await Sandbox.create({
    apiKey: `e2b_${made.text}`,
    apiUrl: gateway.url,
    sandboxUrl: gateway.url,
    envs: { FROM_CREATE: "created" },
    timeoutMs: 900_000,
  });
}, 900_000);

afterAll(async () => {
  await sandbox?.kill();
  if (keyId !== "") await keys.remove(keyId);
  await gateway?.close();
});

test.skipIf(!asked)(
  "code runs with state, errors, results, charts, tables and contexts",
  async () => {
    const timeoutMs = 600_000;
    const first = await sandbox.runCode("x = 41; print('said'); x + 1", { timeoutMs });
    expect(first.text).toBe("42");
    expect(first.logs).toEqual({ stdout: ["said\n"], stderr: [] });
    expect(first.executionCount).toBe(1);
    expect((await sandbox.runCode("x += 1; x")).text).toBe("42");
    const failed = await sandbox.runCode("1/0");
    expect(failed.error).toMatchObject({ name: "ZeroDivisionError", value: "division by zero" });
    const set = await sandbox.runCode(
      "import os; os.environ['FROM_CREATE'] + os.environ['ONCE'] + os.getcwd()",
      { envs: { ONCE: "it's" } },
    );
    expect(set.text).toBe("createdit's/home/user");
    const lines: string[] = [];
    await sandbox.runCode("import time\nfor i in range(3): print(i, flush=True); time.sleep(0.2)", {
      onStdout: ({ line }) => void lines.push(line),
    });
    expect(lines.join("")).toBe("0\n1\n2\n");
    const chart = await sandbox.runCode(
      "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()",
      { timeoutMs },
    );
    const said = JSON.stringify(chart).slice(0, 2000);
    expect(
      chart.results.map(({ png }) => png?.slice(0, 8)),
      said,
    ).toContain("iVBORw0K");
    const table = await sandbox.runCode("import pandas as pd; pd.DataFrame({'a': [1, 2]})", {
      timeoutMs,
    });
    expect(table.results[0]).toMatchObject({ data: { a: [1, 2] } });
    const context = await sandbox.createCodeContext({ cwd: "/tmp" });
    expect((await sandbox.runCode("os.getcwd()", { context })).error?.name).toBe("NameError");
    expect((await sandbox.listCodeContexts()).map(({ language, cwd }) => [language, cwd])).toEqual([
      ["python", "/home/user"],
      ["javascript", "/home/user"],
      ["python", "/tmp"],
    ]);
    await sandbox.removeCodeContext(context);
    await expect(sandbox.runCode("1", { context })).rejects.toThrow(/not found/);
    // The package shows the status alone; what is offered stands in the body (test/gateway/interpreter.test.ts).
    await expect(sandbox.runCode("1", { language: "r" })).rejects.toThrow(/500/);
    const shell = await sandbox.runCode("x=5; cd /tmp; echo $FROM_CREATE $ONCE; false", {
      language: "bash",
      envs: { ONCE: "it's" },
    });
    expect(shell.logs.stdout).toEqual(["created it's\n"]);
    expect(shell.error?.value).toBe("1");
    const again = await sandbox.runCode("echo $x $PWD ${ONCE-none}", { language: "bash" });
    expect(again.logs.stdout.join("")).toBe("5 /tmp none\n");
    const js = { language: "javascript", timeoutMs };
    const script = "import os from 'os'; const n = await Promise.resolve(41); n + 1";
    expect((await sandbox.runCode(script, js)).text).toBe("42");
    expect((await sandbox.runCode("n + os.EOL.length", js)).text).toBe("42");
    const ts = await sandbox.runCode("const said: string = 'typed'; said", {
      language: "ts",
      timeoutMs,
    });
    expect(ts.text).toBe("typed");
    // What pip installs is found by the kernel that runs already.
    const installed = await sandbox.runCode(
      "import site, sys; (site.getusersitepackages() in sys.path, os.environ['PIP_BREAK_SYSTEM_PACKAGES'])",
    );
    expect(installed.text).toBe("(True, '1')");
    await sandbox.commands.run("echo from a command >/home/user/said");
    expect((await sandbox.runCode("open('said').read()")).text).toBe("from a command\\n");
  },
  1_200_000,
);
