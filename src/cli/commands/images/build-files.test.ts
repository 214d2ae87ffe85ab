import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import type { BuildReport } from "../../../model/api.ts";
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
