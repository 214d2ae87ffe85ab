/** The network helper's end in this process; programs of these tests stand for the helper. */
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { networkHelperBinary } from "../util/package.ts";
import { Helper } from "./helper.ts";

/** A helper that is this program of Node.js. */
function helperOf(program: string, onExit?: () => void): Helper {
  const helper = new Helper(
    () => [process.execPath, "-e", program],
    () => undefined,
    onExit,
  );
  onTestFinished(() => helper.stop());
  return helper;
}

/** A file of this test's. */
function scratch(name: string): string {
  const dir = mkdtempSync(join(tmpdir(), "vmsan-helper-"));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  return join(dir, name);
}

test("a helper that takes nothing any more, and has not ended yet, is asked nothing: the next one is", async () => {
  const first = scratch("first");
  let gone = 0;
  const helper = helperOf(
    `const fs = require("node:fs");
    process.on("SIGTERM", () => undefined);
    process.on("message", ({ id, op }) => {
      if (fs.existsSync(${JSON.stringify(first)})) {
        process.send({ id, ok: true, run: { code: 0, stdout: "second", stderr: "" } });
        return;
      }
      fs.writeFileSync(${JSON.stringify(first)}, "");
      process.send({ id, ok: true }, () => process.disconnect());
    });
    setInterval(() => undefined, 1000);`,
    () => (gone += 1),
  );
  await helper.hello();
  const child = helper["running"]?.child;
  if (child === undefined) throw new TypeError("no helper");
  while (child.connected) await new Promise(setImmediate);
  // Before anything is told of it.
  expect(await helper.run(undefined, ["ip"], "", 1000)).toMatchObject({ stdout: "second" });
  // It is of no use to anybody, and is ended.
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  expect(gone).toBe(1);
});

test("what a helper that ends had not answered is asked of the next one, but for programs", async () => {
  const first = scratch("first");
  const asked = scratch("asked");
  let ended = 0;
  const helper = helperOf(
    `const fs = require("node:fs");
    process.on("message", ({ id, op }) => {
      fs.appendFileSync(${JSON.stringify(asked)}, op + "\\n");
      if (fs.existsSync(${JSON.stringify(first)})) process.send({ id, ok: true });
      else if (op === "run") { fs.writeFileSync(${JSON.stringify(first)}, ""); process.exit(3); }
    });`,
    () => (ended += 1),
  );
  const settings = helper.sysctl("/proc/self/ns/net", {});
  // Whether it was carried out nobody knows: whoever asked for it has to see to that.
  await expect(helper.run(undefined, ["ip"], "", 1000)).rejects.toMatchObject({
    code: "ERR_NETWORK_HELPER_LOST",
    why: expect.stringContaining("ended with 3") as unknown,
  });
  await settings;
  expect(readFileSync(asked, "utf8").trim().split("\n")).toEqual(["sysctl", "run", "sysctl"]);
  expect(ended).toBe(1);
});

test("a program of a helper that ends is told of when it has ended itself", async () => {
  const [told, go, done] = [scratch("told"), scratch("go"), scratch("done")];
  const helper = new Helper(
    () => [networkHelperBinary()],
    () => undefined,
  );
  onTestFinished(() => helper.stop());
  const program = `echo begun > ${told}; until [ -e ${go} ]; do sleep 0.05; done; echo done > ${done}`;
  let settled = false;
  const run = helper.run(undefined, ["sh", "-c", program], "", 60_000).finally(() => {
    settled = true;
  });
  const failed = expect(run).rejects.toMatchObject({ code: "ERR_NETWORK_HELPER_LOST" });
  await expect.poll(() => readIf(told), { timeout: 60_000 }).toBe("begun\n");
  const child = helper["running"]?.child;
  if (child === undefined) throw new TypeError("no helper");
  child.kill("SIGKILL");
  await once(child, "exit");
  await helper.hello(); // by the next one
  expect(settled).toBe(false);
  writeFileSync(go, "");
  await failed;
  expect(readIf(done)).toBe("done\n");
});

test("a helper that is stopped leaves nobody waiting", async () => {
  const helper = helperOf(`setInterval(() => undefined, 1000)`);
  const all = Promise.allSettled([
    helper.hello(),
    helper.run(undefined, ["ip"], "", 1000),
    helper.log("vm", "/proc/self/ns/net", 1).begun,
  ]);
  helper.stop();
  const codes = (await all).map((one) => (one.status === "rejected" ? one.reason : one) as unknown);
  expect(codes).toMatchObject([
    { code: "ERR_NETWORK_HELPER" },
    { code: "ERR_NETWORK_HELPER_LOST" },
    { code: "ERR_NETWORK_HELPER" },
  ]);
});

/** What is in a file; nothing while there is none. */
function readIf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    // ENOENT: not yet.
    return "";
  }
}
