/**
 * `commit` and `image diff`: what a guest has done to its files, in every way that an overlay has of
 * keeping it, is what a VM of the new image sees; umoci and skopeo read it alike.
 */
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import type { Vm } from "../../../src/client/vm.ts";
import { expectUnpackedAlike } from "../../builds/unpacked.ts";
import { booted, installation, temporary } from "../../fixtures/ladder.ts";
import { busyboxLayer, put, tool, umociImage } from "../images.ts";
import { errorCode, vmsanJson, vmsanOk } from "../support.ts";

const made = installation("kernel");
const place = temporary();
const image = { source: "" };
beforeAll(async () => {
  image.source = await umociImage(join(place.path, "image"), [
    busyboxLayer,
    async (root) => {
      await put(join(root, "gone"), "gone");
      for (const name of ["tree/old/a", "tree/kept/file", "opaque/below", "opaque/sub/x"]) {
        await put(join(root, name), name);
      }
      for (const name of ["moved/a", "moved/inner/b", "moved/inner/c", "deep/one/x/y"]) {
        await put(join(root, name), name);
      }
      await put(join(root, "linked/a"), "linked");
      await tool("ln", join(root, "linked/a"), join(root, "linked/b"));
      await put(join(root, "file-to-dir"), "file");
      await put(join(root, "dir-to-file/inside"), "inside");
    },
  ]);
});

const first = booted(made, () => ({ image: image.source, memory: 256, name: "first" }));

/** What the guest sees: of each name kind, mode, owner, device, of a file links, size, time, content. */
const VIEW = `
b=/bin/busybox
cd /
all="find . -xdev ( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./tmp
  -o -path ./etc/hosts -o -path ./etc/hostname -o -path ./etc/resolv.conf -o -path ./etc/machine-id ) -prune -o"
$b $all -type d -exec $b stat -c '%n %F %a %u:%g' {} +
$b $all ! -type d -exec $b stat -c '%N %F %a %u:%g %t:%T %h %s %Y' {} +
$b $all -type f -exec $b md5sum {} +`;

/** The guest's view of its files. */
async function view(vm: Vm): Promise<string[]> {
  const { stdout, stderr, exitCode } = await vm.exec(["/bin/busybox", "sh", "-c", VIEW]);
  expect({ exitCode, stderr: stderr.toString() }).toEqual({ exitCode: 0, stderr: "" });
  // A file whose other name was changed: the overlay goes on counting both names.
  const lines = stdout.toString().trim().split("\n");
  return lines.filter((line) => !line.startsWith("./linked/b regular")).sort();
}

/** Do something in a guest. */
async function work(vm: Vm, script: string): Promise<void> {
  const sh = ["/bin/busybox", "sh", "-ec", script];
  const { stderr, exitCode } = await vm.exec(sh);
  expect({ exitCode, stderr: stderr.toString() }).toEqual({ exitCode: 0, stderr: "" });
}

const CHANGES = `
b=/bin/busybox
echo new >/added; $b chown 1234:70000 /added; $b chmod 6751 /added
$b rm /gone
$b rm -r /tree/old
$b rm -r /opaque; $b mkdir /opaque; echo fresh >/opaque/fresh
$b mv /moved /elsewhere; echo more >/elsewhere/more; $b rm /elsewhere/inner/b
$b mv /deep/one /deep/two
$b mv /elsewhere/inner /elsewhere/renamed
$b chmod 0700 /tree/kept
$b ln /linked/a /linked/c; $b ln /added /also-added
$b ln -s ../added /link
$b mknod /null c 1 3; $b mknod /block b 259 70000; $b mkfifo /fifo
$b rm /file-to-dir; $b mkdir /file-to-dir; echo x >/file-to-dir/x
$b rm -r /dir-to-file; echo y >/dir-to-file
$b dd if=/dev/zero of=/sparse bs=1 count=1 seek=5000000 2>/dev/null
$b fallocate -l 300000 /allocated
$b mkdir "/a name"; echo z >"/a name/späte Datei"
$b touch -d '1971-01-01 00:00:00' /tree/kept/file
$b mkdir -p /many; i=0; while [ $i -lt 600 ]; do : >/many/a-rather-long-name-of-a-file-$i; i=$((i+1)); done
`;

test("a running VM's changes are listed, and an image of them shows what the guest saw", async () => {
  const { vm } = first;
  await work(vm, CHANGES);
  const seen = await view(vm);
  const listed = await vmsanOk(["image", "diff", "first"], { dir: made.dir });
  const lines = listed.split("\n");
  for (const line of ["A /added", "D /gone", "C /tree", "D /tree/old", "C /tree/kept"]) {
    expect(lines).toContain(line);
  }
  for (const line of ["D /moved", "A /elsewhere", "A /elsewhere/a", "A /elsewhere/renamed/c"]) {
    expect(lines).toContain(line);
  }
  expect(listed).not.toMatch(/etc\/|elsewhere\/renamed\/b/);

  const flags = [
    "--change",
    'CMD ["/bin/busybox", "cat", "/added"]',
    "--change",
    "ENV A=1 B='2 3'",
  ];
  const report = await vmsanJson<{ digest: string; warnings: string[] }>(
    ["commit", ...flags, "-m", "all of it", "-a", "somebody", "first", "changed:1"],
    { dir: made.dir },
  );
  expect(report.warnings).toEqual([]);
  // The source goes on, its work and its network.
  await work(vm, "echo on >/goes-on");

  const again = await made.vmsan.create({ image: "changed:1", memory: 256, name: "second" });
  expect(await view(again)).toEqual(seen);
  const { config } = again.view.image ?? {};
  expect(config).toMatchObject({ cmd: ["/bin/busybox", "cat", "/added"] });
  expect(config?.env).toEqual(expect.arrayContaining(["A=1", "B=2 3"]));
  const history = await vmsanOk(["image", "history", "changed:1"], { dir: made.dir });
  expect(history).toContain("all of it");
  expect(await again.diff()).toEqual([]);

  await expectUnpackedAlike(made, "changed:1", place.path);
});

test("a stopped VM's changes, over an image that was itself a commit; also when it was killed", async () => {
  const vm = await made.vmsan.get("second");
  await work(
    vm,
    "b=/bin/busybox; $b mv /elsewhere /back; $b rm -r /many /opaque; echo 2 >/second; $b sync",
  );
  const seen = await view(vm);
  await vm.stop(0);
  await vm.commit("changed:2");
  const third = await made.vmsan.create({ image: "changed:2", memory: 256, name: "third" });
  expect(await view(third)).toEqual(seen);
  await made.vmsan.remove("third", { force: true });
  // Sharing: the second image has the layers of the first and one more.
  const [one, two] = await Promise.all(
    ["changed:1", "changed:2"].map(async (name) => made.vmsan.images.inspect(name)),
  );
  expect(two?.layers.slice(0, -1)).toEqual(one?.layers);
});

test("what cannot be made an image is refused with its reason", async () => {
  const { dir } = made;
  expect(await errorCode(["commit", "nobody", "x"], { dir })).toBe("ERR_VM_NOT_FOUND");
  expect(await errorCode(["commit", "first", "A B"], { dir })).toBe("ERR_VALIDATION_IMAGE_REF");
  const change = ["commit", "--change", "RUN true", "first", "x:1"];
  expect(await errorCode(change, { dir })).toBe("ERR_VALIDATION_FLAGS");
  expect(await errorCode(["image", "inspect", "x:1"], { dir })).toBe("ERR_IMAGE_NOT_FOUND");
});
