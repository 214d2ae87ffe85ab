/** OpenSSH's server in a VM of the base image, which goes away with the measurement. */
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { freePort } from "../../test/fixtures/ports.ts";
import type { Bench } from "./bench.ts";
import { callVmsan } from "./home.ts";
import { findSshd } from "./sshd.ts";

/** Libraries that go with the guest's own loader. */
const GUESTS_OWN = /^(ld-linux|lib(c|m|dl|rt|pthread|resolv)\.so)/;

/** Where sshd and its libraries lie in the guest. */
const THERE = "/opt/sshd";

/** The program and the libraries that the base image may not have, in a directory. */
function collect(dir: string): string {
  const { path, env } = findSshd(dir);
  const files = join(dir, "sshd");
  mkdirSync(files);
  const listed = execFileSync("ldd", [path], { env, encoding: "utf8" }).match(/\/\S+/g) ?? [];
  const libraries = listed.filter((file) => !GUESTS_OWN.test(basename(file)));
  for (const file of [path, ...libraries]) copyFileSync(file, join(files, basename(file)));
  for (const key of ["host", "user"])
    execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", join(dir, key)]);
  for (const name of ["host", "user.pub"]) copyFileSync(join(dir, name), join(files, name));
  const lines = [
    `HostKey ${THERE}/host`,
    `AuthorizedKeysFile ${THERE}/user.pub`,
    "StrictModes no",
    "UsePAM no",
    "PermitRootLogin yes",
    "Subsystem sftp internal-sftp",
  ];
  writeFileSync(join(files, "sshd_config"), `${lines.join("\n")}\n`);
  return files;
}

/** What sshd wants of a system before it serves. */
const PREPARE = [
  `chmod 600 ${THERE}/host`,
  "mkdir -p /run/sshd",
  "grep -q ^sshd: /etc/passwd || echo sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin >>/etc/passwd",
  // A locked password is a locked account to it.
  "sed -i 's/^root:[^:]*:/root:*:/' /etc/shadow",
  // Commands by vmsan have the image's; a shell with one starts by a tenth slower.
  `[ -z "$LANG" ] || echo "SetEnv LANG=$LANG" >>${THERE}/sshd_config`,
].join("\n");

/** Such a VM. */
export interface GuestWithSshd {
  vm: string;
  /** Process ID of the VMM. */
  vmm: number;
  /** Of 127.0.0.1: the server in the guest, by its network. The key is `user` in the measurement's directory. */
  port: number;
  /** The command that is a server in the guest; with `-i` for one connection on its input and output. */
  sshd: string[];
}

/** Make a VM, carry the server of Debian's package into it, and start it. */
export async function guestWithSshd(own: Bench): Promise<GuestWithSshd> {
  const { env } = process;
  const { dir } = own;
  const port = await freePort();
  const published = ["--publish-port", `127.0.0.1:${port}:22`];
  const vm =
    callVmsan(env, "create", "--no-warm", ...published)
      .split("\n")
      .at(-1) ?? "";
  own.defer(() => void callVmsan(env, "rm", "--force", vm));
  const { pid: vmm } = JSON.parse(callVmsan(env, "inspect", vm)) as { pid: number };
  callVmsan(env, "upload", "--user", "root", "--dest", THERE, vm, collect(dir));
  callVmsan(env, "exec", "--sudo", vm, "sh", "-c", PREPARE);
  const sshd = ["env", `LD_LIBRARY_PATH=${THERE}`, `${THERE}/sshd`, "-f", `${THERE}/sshd_config`];
  callVmsan(env, "exec", "--sudo", "--detach", vm, ...sshd, "-D");
  return { vm, vmm, port, sshd };
}
