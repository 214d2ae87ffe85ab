/** Files into a VM and out of it; sizes, modes and contents are kept. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Vmsan } from "../src/index.ts";

const dir = await mkdtemp(join(tmpdir(), "vmsan-example-"));
const vm = await new Vmsan().create({ runtime: "base", ephemeral: true });
try {
  await writeFile(join(dir, "names.txt"), "grace\nada\nedsger\n");
  await vm.upload([join(dir, "names.txt")], "/tmp/names.txt");
  await vm.exec(["sh", "-c", "sort /tmp/names.txt >/tmp/sorted.txt"]);
  await vm.download("/tmp/sorted.txt", join(dir, "sorted.txt"));
  process.stdout.write(await readFile(join(dir, "sorted.txt")));
} finally {
  await vm.remove();
  await rm(dir, { recursive: true });
}
