import { execFileSync } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { mkdtemp, readFile, readdir, readlink, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import type { BuildReport } from "../../../model/api/builds.ts";
import { makeRoom, writeFacts } from "./build-files.ts";

test("files that cannot be written are refused before the build; a former one is none of this build's", async () => {
  const dir = await mkdtemp(join(tmpdir(), "vmsan-facts-"));
  onTestFinished(() => rm(dir, { recursive: true }));
  const iidfile = join(dir, "iid");
  const refused = { code: "ERR_VALIDATION_FLAGS" };
  await expect(makeRoom({ iidfile: dir })).rejects.toMatchObject(refused);
  await expect(makeRoom({ metadataFile: join(dir, "no/facts") })).rejects.toMatchObject({
    ...refused,
    message: expect.stringContaining("--metadata-file") as string,
    why: "It cannot be written: ENOENT.",
  });
  await writeFile(iidfile, "of a build before");
  await makeRoom({ iidfile });
  expect(await readdir(dir)).toEqual([]);
  const report = { digest: "sha256:1", configDigest: "sha256:2", names: ["a", "b"] };
  await writeFacts({ iidfile, metadataFile: join(dir, "facts") }, report as unknown as BuildReport);
  expect(await readFile(iidfile, "utf8")).toBe("sha256:1");
  expect(JSON.parse(await readFile(join(dir, "facts"), "utf8"))).toMatchObject({
    "image.name": "a,b",
  });
});

test("a link in a file's place is followed, and stays", async () => {
  const dir = await mkdtemp(join(tmpdir(), "vmsan-facts-"));
  onTestFinished(() => rm(dir, { recursive: true }));
  const [iidfile, target] = [join(dir, "iid"), join(dir, "elsewhere")];
  await writeFile(target, "of a build before, and longer than what comes");
  await symlink(target, iidfile);
  await makeRoom({ iidfile });
  expect(await readFile(target, "utf8")).toBe("");
  const report = { digest: "sha256:1", configDigest: "sha256:2", names: [] };
  await writeFacts({ iidfile }, report as unknown as BuildReport);
  expect([await readFile(target, "utf8"), await readlink(iidfile)]).toEqual(["sha256:1", target]);
});

test("standard output that is a file keeps what is in it, and its link", async () => {
  const dir = await mkdtemp(join(tmpdir(), "vmsan-facts-"));
  onTestFinished(() => rm(dir, { recursive: true }));
  const [link, log] = [join(dir, "stdout"), join(dir, "log")];
  await symlink("/proc/self/fd/1", link);
  await writeFile(log, "before\n");
  const from = JSON.stringify(join(import.meta.dirname, "build-files.ts"));
  const program = `const { makeRoom, writeFacts } = await import(${from});
    const files = { iidfile: ${JSON.stringify(link)} };
    await makeRoom(files);
    await writeFacts(files, { digest: "sha256:1" });`;
  const out = openSync(log, "a");
  const words = ["--input-type=module", "--eval", program];
  execFileSync(process.execPath, words, { stdio: ["ignore", out, "inherit"] });
  closeSync(out);
  expect(await readFile(log, "utf8")).toBe("before\nsha256:1");
  expect(await readlink(link)).toBe("/proc/self/fd/1");
});
