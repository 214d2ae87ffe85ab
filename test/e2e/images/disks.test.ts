/** A guest kernel as the judge of our disks: it reads them, writes to them and grows them. */
import { chmod, chown, link, mkdir, open, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { installation, temporary } from "../../fixtures/ladder.ts";
import { busyboxLayer, put, tool, umociImage } from "../images.ts";
import { vmsanJson, vmsanOk } from "../support.ts";

const here = installation("kernel");
const work = temporary();

/** Everything below /tree that a program can see, a line each. */
const LISTING = `cd /tree
busybox find . ! -type d -exec busybox stat -c '%n|%f|%u:%g|%s|%Y|%h|%t:%T|%N' {} +
busybox find . -type d -exec busybox stat -c '%n|%f|%u:%g|%Y' {} +
busybox find . -type f -exec busybox sha256sum {} +`;

/** Files at the edges of what tar and ext4 hold. */
async function oddFiles(rootfs: string): Promise<void> {
  const tree = join(rootfs, "tree");
  await mkdir(join(tree, "many"), { recursive: true });
  for (let i = 0; i < 600; i++) await writeFile(join(tree, "many", `file-number-${i}`), String(i));
  for (const name of ["n".repeat(255), "new\nline", "-rf", " ", "\u00e9\u4e2d"]) {
    await writeFile(join(tree, name), name);
  }
  await writeFile(Buffer.concat([Buffer.from(`${tree}/`), Buffer.from([0xff, 0x80])]), "bytes");
  const sparse = await open(join(tree, "sparse"), "w");
  await sparse.write("middle", 7_000_000);
  await sparse.truncate(50_000_001);
  await sparse.close();
  await put(join(tree, "deep", ...Array.from({ length: 100 }, () => "d"), "end"), "deep");
  await link(join(tree, "sparse"), join(tree, "hard"));
  await symlink("t".repeat(59), join(tree, "short"));
  await symlink("t/".repeat(700), join(tree, "long"));
  await tool("mkfifo", join(tree, "fifo"));
  await tool("mknod", join(tree, "device"), "b", "259", "70000");
  await put(join(tree, "su"), "su");
  await chown(join(tree, "su"), 100_000, 70_000);
  await chmod(join(tree, "su"), 0o6751);
}

/** resize2fs of this machine, with its libraries. */
async function resizeTool(rootfs: string): Promise<void> {
  const program = (await tool("sh", "-c", "command -v resize2fs")).trim();
  const libraries = (await tool("ldd", program)).matchAll(/(\/\S+) \(0x/g);
  for (const path of [program, ...[...libraries].map((match) => match[1] ?? "")]) {
    await mkdir(join(rootfs, path, ".."), { recursive: true });
    await tool("cp", "-L", path, join(rootfs, path));
  }
}

/** e2fsck finds nothing. */
async function expectClean(image: string): Promise<void> {
  await tool("e2fsck", "-fn", image);
}

test("a guest sees umoci's tree, writes, and grows its disk while it is mounted", async () => {
  const image = await umociImage(join(work.path, "odd"), [busyboxLayer, oddFiles, resizeTool]);
  const bundle = join(work.path, "bundle");
  await tool("umoci", "unpack", "--image", image.slice("oci:".length), bundle);
  const wanted = await tool("chroot", join(bundle, "rootfs"), "/bin/sh", "-c", LISTING);
  expect(wanted.split("\n").length).toBeGreaterThan(1300);

  const { vmId } = await vmsanJson<{ vmId: string }>(
    ["create", "--memory", "256", "--disk", "1gb", "--from-image", image],
    here,
  );
  const exec = (script: string): Promise<string> =>
    vmsanOk(["exec", vmId, "--", "/bin/sh", "-c", script], here);
  const lines = (text: string): string[] => text.split("\n").toSorted();
  expect(lines(await exec(LISTING))).toEqual(lines(wanted));

  const { rootfs } = await vmsanJson<{ rootfs: string }>(["inspect", vmId], here);
  const upper = join(here.dir, "vms", vmId, "upper.ext4");
  const fill = (file: string): string =>
    `busybox dd if=/dev/urandom of=${file} bs=64k count=100 2>/dev/null && busybox sha256sum ${file}`;
  const written = await exec(`rm /tree/many/file-number-7 && ${fill("/written")}`);
  await vmsanOk(["stop", vmId], here);
  await expectClean(rootfs);
  await expectClean(upper);

  await truncate(upper, 20 * 2 ** 30);
  await vmsanOk(["start", vmId], here);
  const size = await exec(
    `busybox mkdir /disk && busybox mount /dev/vdb /disk && resize2fs /dev/vdb >&2 && ${fill("/after")} >&2
    busybox df -m /disk | busybox awk 'NR > 1 { print $2 }'; busybox umount /disk; busybox sync`,
  );
  expect(Number(size)).toBeGreaterThan(19_000);
  expect(await exec("busybox sha256sum /written")).toBe(written);
  await vmsanOk(["stop", vmId], here);
  await expectClean(upper);
  const said = await tool("dumpe2fs", "-h", upper);
  expect(said).toMatch(/^Block count: +5242880$/m);
});
