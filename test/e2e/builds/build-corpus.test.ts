/**
 * The corpus of Dockerfiles (test/builds/corpus): what `vmsan build` makes of each is what buildah makes of
 * it on this machine. A quarter of an hour under emulation, so only with VMSAN_TEST_CORPUS=1 (or a
 * pattern of names); test/e2e/builds/build.test.ts builds a few of them always.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "vitest";
import { readCases } from "../../builds/cases.ts";
import { LONG, SECRET, compareCase, expectSame, openBench } from "../../builds/compare.ts";
import type { Bench } from "../../builds/compare.ts";
import { Buildah, unpackBuilder } from "../../builds/judge.ts";
import { installation, temporary } from "../../fixtures/ladder.ts";
import { tool } from "../images.ts";

const wanted = process.env["VMSAN_TEST_CORPUS"] ?? "";
const pattern = new RegExp(wanted === "1" ? "" : wanted);
const cases = (await readCases()).filter(({ name }) => pattern.test(name));
const reason = "VMSAN_TEST_CORPUS=1 builds it: a quarter of an hour under emulation";
if (wanted === "") console.warn(`the corpus of ${cases.length} Dockerfiles is left out: ${reason}`);

describe.skipIf(wanted === "")(`the corpus of Dockerfiles (${reason})`, () => {
  const made = installation("base");
  const place = temporary();
  let bench: Bench;

  beforeAll(async () => {
    const newer = join(place.path, "newer");
    await mkdir(newer);
    await unpackBuilder(join(made.dir, "runtimes"), join(place.path, "builder"));
    const opened = await openBench(made.dir, place.path);
    const other = new Buildah(newer, join(place.path, "builder"));
    await other.must("pull", "-q", `oci-archive:${join(place.path, "base.tar")}`);
    const server = createServer((request, response) => {
      const text =
        request.url === "/file.txt" ? Buffer.from("from a server\n") : gzipSync("text\n");
      const modified = "Sun, 09 Sep 2001 01:46:40 GMT";
      response.writeHead(200, { "last-modified": modified, "content-length": text.length });
      response.end(text);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    bench = { ...opened, newer: other, port: (server.address() as AddressInfo).port };
    return async () => {
      server.close();
      await bench.judge.remove();
      await other.remove();
    };
  }, LONG);

  test.each(cases)(
    "$name",
    async (given) => {
      expectSame(given, await compareCase(given, bench));
      if (given.secret !== true) return;
      expect(await tool("sh", "-c", `grep -rl ${SECRET} ${made.dir}/images || true`)).toBe("");
    },
    LONG,
  );
});
