import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import {
  absolutePath,
  bytesOfText,
  decodeText,
  encodeText,
  fsPath,
  textOfBytes,
} from "./byte-text.ts";

const root = realpathSync(mkdtempSync(join(tmpdir(), "vmsan-bytes-")));
afterAll(() => rmSync(root, { recursive: true }));

describe("text of bytes", () => {
  test.each([
    ["ascii", Buffer.from("abc"), "abc"],
    ["characters", Buffer.from("é你🙂\uFFFD"), "é你🙂\uFFFD"],
    ["a byte", Buffer.from([0xff, 0x41]), "\uDCFFA"],
    ["a character cut short", Buffer.from([0x41, 0xe4, 0xbd]), "A\uDCE4\uDCBD"],
    ["a surrogate in UTF-8", Buffer.from([0xed, 0xb3, 0xbf]), "\uDCED\uDCB3\uDCBF"],
  ])("%s", (_name, bytes, text) => {
    expect(textOfBytes(bytes)).toBe(text);
    expect(bytesOfText(text)).toEqual(bytes);
  });

  test("any bytes come back, also by way of JSON and of a URL", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (given) => {
        const bytes = Buffer.from(given);
        const text = textOfBytes(bytes);
        expect(bytesOfText(text)).toEqual(bytes);
        expect(bytesOfText(JSON.parse(JSON.stringify(text)) as string)).toEqual(bytes);
        expect(decodeText(encodeText(text))).toBe(text);
        expect(encodeText(text)).toMatch(/^[\w%.~!*'()-]*$/);
      }),
    );
  });
});

test("paths: text where it names the file, else bytes; absolute also from a directory of bytes", () => {
  expect(fsPath("/é")).toBe("/é");
  expect(fsPath("/\uDCFF")).toEqual(Buffer.from([0x2f, 0xff]));
  expect(absolutePath("/a/../b\uDCFF")).toBe("/b\uDCFF");
  expect(absolutePath("b\uDCFF")).toBe(`${process.cwd()}/b\uDCFF`);
  mkdirSync(bytesOfText(`${root}/d\uDCFE`));
  // Node.js itself cannot go to such a directory; the glob names it.
  const say = `import(${JSON.stringify(join(import.meta.dirname, "byte-text.ts"))})
    .then(({ absolutePath }) => console.log(JSON.stringify(absolutePath("../b"))))`;
  const script = 'cd "$1"/* && exec "$2" --disable-warning=ExperimentalWarning -e "$3"';
  const said = execFileSync("sh", ["-c", script, "sh", root, process.execPath, say]);
  expect(JSON.parse(said.toString())).toBe(`${root}/b`);
});
