import { spawnSync } from "node:child_process";
import { openSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { VmsanError } from "../model/errors.ts";
import { statusAfterLoss } from "./lost-output.ts";
import { fieldsOf, Output, oneLine, table } from "./output.ts";

describe("a guest's words in a list", () => {
  test.each([
    ["a line break", "a\nvm-00000000  web", "a\\nvm-00000000  web"],
    ["a carriage return", "a\rb", "a\\rb"],
    ["a tab", "a\tb", "a\\tb"],
    ["an escape sequence", "\u001B[2J", "\\u001b[2J"],
    ["a control sequence of one character", "\u009B2J", "\\u009b2J"],
    ["a line separator", "a\u2028b", "a\\u2028b"],
    ["a change of direction", "a\u202Eb", "a\\u202eb"],
    ["a byte that is no text", "a\uDCFFb", "a\\xffb"],
    ["other languages and emoji", "déjà 你好 🙂", "déjà 你好 🙂"],
  ])("%s", (_name, text, shown) => {
    expect(oneLine(text)).toBe(shown);
    expect(table([["ID"], [text]]).split("\n")).toHaveLength(2);
  });
});

test.each([false, true])("a guest's words in an error forge no line (verbose: %s)", (verbose) => {
  const written: string[] = [];
  const spy = vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    written.push(String(text));
    return true;
  });
  const words = "x\nerror: forged [ERR_FORGED]\r\n  fix: rm -rf /\u001B[2J\u0085";
  new Output({ verbose }).failure(
    new VmsanError({ code: "ERR_AGENT_EXEC", message: words, why: words, fix: words }),
  );
  spy.mockRestore();
  const lines = written.join("").split("\n");
  const shown = String.raw`x\nerror: forged [ERR_FORGED]\r\n  fix: rm -rf /\u001b[2J\u0085`;
  expect(lines.slice(0, 3)).toEqual([
    `error: ${shown} [ERR_AGENT_EXEC]`,
    `  why: ${shown}`,
    `  fix: ${shown}`,
  ]);
  expect(lines.slice(3).some((line) => line.includes("forged"))).toBe(false);
});

describe("what cannot be written", () => {
  const bin = join(import.meta.dirname, "../../bin/vmsan");
  const words = [["--help"], ["help", "run"], ["image", "--help"], ["completion", "bash"]];
  test.each(words.map((args) => [args.join(" "), args] as const))(
    "%s to a full disk: status 1, and it is said",
    (_name, args) => {
      const stdio = ["ignore", openSync("/dev/full", "w"), "pipe"] as const;
      const { status, stderr } = spawnSync(bin, args, { stdio: [...stdio] });
      expect(stderr.toString()).toMatch(/Cannot write to standard output.*ERR_OUTPUT.*no space/s);
      expect(status).toBe(1);
    },
  );

  test("a closed output is noticed, unless nothing is to be written there", () => {
    const run = (line: string): [number | null, boolean] => {
      const { status, stderr } = spawnSync("sh", ["-c", line, bin], { encoding: "utf8" });
      return [status, /Cannot write to standard output.*ERR_OUTPUT.*closed/s.test(stderr)];
    };
    expect(run('"$0" --version >&-')).toEqual([1, true]);
    expect(run('"$0" --help >&-')).toEqual([1, true]);
    expect(run('"$0" --no-such-option >&-')).toEqual([2, false]);
  });

  test("a short write is no whole one", () => {
    // One block of room: the kernel takes a part, and refuses the rest.
    const script = `trap '' XFSZ; ulimit -f 1; exec "$0" completion bash >"$1"`;
    const file = join(process.env["TMPDIR"] ?? "/tmp", `vmsan-short-${process.pid}`);
    const done = spawnSync("bash", ["-c", `${script}; `, bin, file]);
    spawnSync("rm", ["-f", file]);
    expect(done.stderr.toString()).toContain("ERR_OUTPUT");
    expect(done.status).toBe(1);
  });

  test.each([
    ["a reader that has left", 0, ["EPIPE"], 141],
    ["and the command's own status", 3, ["EPIPE"], 3],
    ["a full disk", 0, ["ENOSPC"], 1],
    ["a full disk, of which the guest's command was told", 141, ["ENOSPC"], 1],
    ["a full disk and the command's own status", 3, ["ENOSPC"], 3],
    ["both outputs", 0, ["EPIPE", "ENOSPC"], 1],
  ])("%s", (_name, status, codes, expected) => {
    const errors = codes.map((code) => Object.assign(new Error(code), { code }));
    expect(statusAfterLoss(status, errors)).toBe(expected);
  });
});

test("fields of an object are words of a line", () => {
  expect(fieldsOf({ name: "a.example", port: 443, why: "not one", made: ["a", "b"] })).toBe(
    'name=a.example port=443 why="not one" made=a,b',
  );
});
