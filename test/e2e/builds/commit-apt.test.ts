/**
 * `commit` after `apt-get install` from a mirror: what dpkg and a package's script do to a whole system, and what is
 * deleted, renamed and linked there, is what a VM of the new image sees, and what skopeo and umoci read.
 * VMSAN_TEST_APT=1 runs it: two minutes under emulation.
 */
import { createHash } from "node:crypto";
import { chmod, link, mkdir, readFile, stat, symlink } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import type { Vm } from "../../../src/client/vm.ts";
import { expectUnpackedAlike } from "../../builds/unpacked.ts";
import { booted, installation, temporary } from "../../fixtures/ladder.ts";
import { put, tool } from "../images.ts";
import { vmsanJson } from "../support.ts";

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

/** What no package does: attributes, a socket, times of before 1970, holes, very many names, directories made anew. */
const ODDITIES = `
perl -e '
  sub attribute { my ($path, $name, $value) = @_; syscall(188, $path, $name, $value, length $value, 0) == 0 or die "$name: $!" }
  attribute("/usr/bin/second-curl", "user.mine", "a\\0b");
  attribute("/etc", "user.of-a-directory", "x" x 1000);
  attribute("/usr/bin/openssl", "security.capability", pack("V5", 0x02000001, 1 << 13, 0, 0, 0));
  attribute("/usr/bin/sample", "trusted.mine", "t");
'
perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0); bind(S, sockaddr_un("/a-socket")) or die $!'
touch -d '1960-02-03 04:05:06.789' /usr/share/sample/before
touch -h -d '2200-01-01 00:00:00' /var/lib/sample/link
truncate -s 64M /holes; printf end >>/holes
rm -r /usr/share/bash-completion; mkdir /usr/share/bash-completion; echo new >/usr/share/bash-completion/new
mv /usr/share/bash-completion /usr/share/moved; mv /usr/share/git-core /usr/share/bash-completion
rm -r /usr/share/bash-completion/templates
ln /usr/bin/tar /var/lib/tar-elsewhere
mkdir /many; cd /many; seq 65000 | xargs touch
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
    await run(first.vm, ODDITIES);
    const all = await run(first.vm, VIEW);
    const seen = all.filter((line) => !line.startsWith("./a-socket s "));
    expect(all).toHaveLength(seen.length + 1);
    expect(seen).toContain("/dev-of-mine 103:11170");
    const { warnings } = await vmsanJson<{ warnings: string[] }>(
      ["commit", "first", "installed:1"],
      { dir: made.dir },
    );
    expect(warnings).toEqual([expect.stringContaining("a-socket")]);
    const again = await made.vmsan.create({ image: "installed:1", memory: 512, name: "again" });
    expect(await run(again, VIEW)).toEqual(seen);
    expect(await run(again, "sample; dpkg -l vmsan-sample | tail -n 1")).toEqual([
      expect.stringMatching(/^ii {2}vmsan-sample +1\.2-3/),
      "sample",
    ]);
    await made.vmsan.remove("again", { force: true });

    await expectUnpackedAlike(made, "installed:1", place.path);
  }, 1_800_000);
});
