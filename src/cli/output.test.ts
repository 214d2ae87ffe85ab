import { spawnSync } from "node:child_process";
import { openSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { statusAfterLoss } from "./lost-output.ts";
import { oneLine, table } from "./output.ts";

describe("a guest's words in a list", () => {
  test.each([
    ["a line break", "a\nvm-00000000  web", "a\\nvm-00000000  web"],
    ["a carriage return", "a\rb", "a\\rb"],
    ["a tab", "a\tb", "a\\tb"],
    ["an escape sequence", "\u001B[2J", "\\u001b[2J"],
    ["a control sequence of one character", "\u009B2J", "\\u009b2J"],
    ["a line separator", "a\u2028b", "a\\u2028b"],
    ["a change of direction", "a\u202Eb", "a\\u202eb"],
    ["other languages and emoji", "déjà 你好 🙂", "déjà 你好 🙂"],
  ])("%s", (_name, text, shown) => {
    expect(oneLine(text)).toBe(shown);
    expect(table([["ID"], [text]]).split("\n")).toHaveLength(2);
  });
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
