/**
 * `commit` after `apt-get install` from a mirror: what dpkg and a package's script do to a whole system, and what is
 * deleted, renamed and linked there, is what a VM of the new image sees, and what skopeo and umoci read.
 * VMSAN_TEST_APT=1 runs it: two minutes under emulation.
 */
import { createHash } from "node:crypto";
import { chmod, link, mkdir, readFile, rm, stat, symlink } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import type { Vm } from "../../../src/client/vm.ts";
import { booted, installation, temporary } from "../../fixtures/ladder.ts";
import { treeOfDirectory, treeOfDisk } from "../../registry/trees.ts";
import { put, tool } from "../images.ts";
import { vmsanJson, vmsanOk } from "../support.ts";

const wanted = process.env["VMSAN_TEST_APT"] !== undefined;
const reason = "VMSAN_TEST_APT=1 runs it: two minutes under emulation";
if (!wanted) console.warn(`a commit after apt-get install is left out: ${reason}`);

const CONTROL = `Package: vmsan-sample
Version: 1.2-3
Architecture: all
Maintainer: Nobody <nobody@example.invalid>
Description: what packages do to a system
`;
const SCRIPT = `#!/bin/sh
set -e
groupadd -r sample
useradd -r -g sample -d /var/lib/sample -s /bin/false sample
mkdir -p /var/lib/sample/state
chown -R sample:sample /var/lib/sample
chmod 2750 /var/lib/sample/state
mknod /var/lib/sample/null c 1 3
mkfifo /var/lib/sample/pipe
ln -s ../sample/state /var/lib/sample/link
`;

/** A mirror with one package in a directory. */
async function mirror(place: string): Promise<string> {
  const dir = join(place, "mirror");
  const tree = join(place, "tree");
  await put(join(tree, "DEBIAN/control"), CONTROL);
  await put(join(tree, "DEBIAN/conffiles"), "/etc/sample.conf\n");
  await put(join(tree, "DEBIAN/postinst"), SCRIPT);
  await chmod(join(tree, "DEBIAN/postinst"), 0o755);
  await put(join(tree, "etc/sample.conf"), "setting = 1\n");
  await put(join(tree, "usr/bin/sample"), "#!/bin/sh\necho sample\n");
  await chmod(join(tree, "usr/bin/sample"), 0o4755);
  await put(join(tree, "usr/share/sample/a file"), "shared\n");
  await link(join(tree, "usr/share/sample/a file"), join(tree, "usr/share/sample/späte Datei"));
  await symlink("../sample", join(tree, "usr/share/sample/self"));
  await mkdir(dir);
  const file = join(dir, "vmsan-sample_1.2-3_all.deb");
  await tool("dpkg-deb", "--build", "--root-owner-group", tree, file);
  const bytes = await readFile(file);
  const digest = createHash("sha256").update(bytes).digest("hex");
  const { size } = await stat(file);
  const more = `Filename: ./vmsan-sample_1.2-3_all.deb\nSize: ${size}\nSHA256: ${digest}\n`;
  await put(join(dir, "Packages"), `${CONTROL}${more}`);
  return dir;
}

const INSTALL = `
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/root/mirror ./' >/etc/apt/sources.list
apt-get -q update && apt-get -q -y install vmsan-sample
rm -r /usr/share/common-licenses
mv /usr/lib/git-core /usr/lib/core-of-git
mv /etc/apt /etc/tpa
chmod 0700 /usr/share/perl5 /usr/bin/openssl
ln /usr/bin/curl /usr/bin/second-curl
mknod /dev-of-mine b 259 70000
dpkg --remove --force-depends less
`;

/** What the guest sees: kind, mode, owner, links, size, time, target of all; content of what was touched. */
const VIEW = `
cd /
find . -xdev \\( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./tmp -o -path ./etc/hosts \\
  -o -path ./etc/hostname -o -path ./etc/resolv.conf -o -path ./etc/machine-id -o -path ./lost+found \\) -prune -o \\
  -type d -printf '%p d %m %U:%G\\n' -o -printf '%p %y %m %U:%G %n %s %T@ %l\\n'
find etc var/lib usr/bin/sample usr/share/sample -type f ! -path etc/hosts ! -path etc/hostname \\
  ! -path etc/resolv.conf ! -path etc/machine-id -exec md5sum {} +
stat -c '%n %t:%T' /var/lib/sample/null /dev-of-mine`;

describe.skipIf(!wanted)(`a commit after apt-get install (${reason})`, () => {
  const made = installation("base");
  const place = temporary();
  const first = booted(made, { memory: 512, name: "first" });
  beforeAll(async () => {
    await first.vm.upload([await mirror(place.path)], "/root/mirror", { user: "root" });
  });

  /** Run a script as root. @returns its lines */
  async function run(vm: Vm, script: string): Promise<string[]> {
    const { stdout, stderr, exitCode } = await vm.exec(["sh", "-ec", script], { user: "root" });
    expect({ exitCode, stderr: exitCode === 0 ? "" : stderr.toString() }).toEqual({
      exitCode: 0,
      stderr: "",
    });
    return stdout.toString().trim().split("\n").toSorted();
  }

  test("equals the guest's own view when it is run again, and what umoci unpacks", async () => {
    await run(first.vm, INSTALL);
    const seen = await run(first.vm, VIEW);
    expect(seen).toContain("/dev-of-mine 103:11170");
    const { warnings } = await vmsanJson<{ warnings: string[] }>(
      ["commit", "first", "installed:1"],
      { dir: made.dir },
    );
    expect(warnings).toEqual([]);
    const again = await made.vmsan.create({ image: "installed:1", memory: 512, name: "again" });
    expect(await run(again, VIEW)).toEqual(seen);
    expect(await run(again, "sample; dpkg -l vmsan-sample | tail -n 1")).toEqual([
      expect.stringMatching(/^ii {2}vmsan-sample +1\.2-3/),
      "sample",
    ]);
    await made.vmsan.remove("again", { force: true });

    const archive = join(place.path, "installed.tar");
    await vmsanOk(["image", "save", "installed:1", "-o", archive], { dir: made.dir });
    // Debian's umoci reads no zstd, which the base image's layer is; what skopeo compresses anew is gzip.
    const plain = `dir:${join(place.path, "plain")}`;
    const layout = join(place.path, "copied");
    await tool("skopeo", "copy", "-q", "--dest-decompress", `oci-archive:${archive}`, plain);
    await tool("skopeo", "copy", "-q", plain, `oci:${layout}:x`);
    await rm(archive);
    await tool("umoci", "unpack", "--image", `${layout}:x`, join(place.path, "bundle"));
    const disk = join(place.path, "installed.ext4");
    await made.vmsan.images.disk("installed:1", disk);
    const ours = treeOfDisk(disk, join(place.path, "scratch"));
    delete ours["lost+found"];
    const theirs = treeOfDirectory(join(place.path, "bundle/rootfs"));
    for (const [path, entry] of Object.entries(ours)) {
      // umoci sets the times of directories before it is done with what is in them.
      if (entry.type === "directory") entry.mtime = theirs[path]?.mtime ?? "";
    }
    expect(Object.keys(ours)).toHaveLength(Object.keys(theirs).length);
    expect(ours).toEqual(theirs);
  }, 1_800_000);
});
