/** Documents of VMs as a daemon finds them. */
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ASIDE } from "../../util/atomic.ts";
import { VmRecords } from "./records.ts";

test("what a killed daemon was writing aside is gone once the next one has looked", async () => {
  const root = await mkdtemp(join(tmpdir(), "vmsan-records-"));
  const dir = join(root, "vm-0123abcd");
  await mkdir(dir);
  await writeFile(join(dir, `${ASIDE}40d82ca103c9c71d`), "{");
  await writeFile(join(dir, "vm.json"), "{}");
  await writeFile(join(dir, "console.log"), "");
  const { broken } = await new VmRecords(root).load();
  expect(broken.map(({ id }) => id)).toEqual(["vm-0123abcd"]);
  expect((await readdir(dir)).toSorted()).toEqual(["console.log", "vm.json"]);
  await rm(root, { recursive: true });
});
