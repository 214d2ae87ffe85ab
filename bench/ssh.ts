/**
 * bench/ssh: vmsan's server of ssh against OpenSSH's own in the same guest, by turns, each over a
 * connection that is kept: a command, bytes up and down, and beside the time the CPU of the VM's process, which
 * other work on the host disturbs less. OpenSSH's is reached over the same channel
 * (`sshd -i` behind `vmsan exec`) and over the guest's network (`sshd -D` behind a published port).
 *
 *   node bench/ssh.ts [--rounds N] [--mib N]      in the VMSAN_DIR that is set
 *
 * The sshd is that of Debian's package, unpacked beside and carried into a VM of the base image that
 * goes away with the measurement. Prints JSON lines.
 */
import { execFileSync } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { bench } from "./lib/bench.ts";
import { callVmsan, vmsan } from "./lib/home.ts";
import { byTurns, costOf, report } from "./lib/measure.ts";
import type { Cost } from "./lib/measure.ts";
import { findSshd, freePort, withMaster } from "./lib/sshd.ts";
import type { Ssh } from "./lib/sshd.ts";

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "30" },
    mib: { type: "string", default: "16" },
  },
});
const rounds = Number(flags.rounds);

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
].join("\n");

/** Options of ssh as words. */
const words = (options: Record<string, string>): string[] =>
  Object.entries(options).flatMap(([name, value]) => ["-o", `${name}=${value}`]);

await bench("ssh", async (own) => {
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

  const block = JSON.parse(callVmsan(env, "ssh-config", "--json", vm)) as {
    hosts: { host: string; options: Record<string, string> }[];
  };
  const [ours] = block.hosts;
  if (ours === undefined) throw new Error("no block for the VM");
  const theirs = {
    StrictHostKeyChecking: "no",
    UserKnownHostsFile: join(dir, "known"),
    IdentityFile: join(dir, "user"),
    IdentitiesOnly: "yes",
    LogLevel: "ERROR",
  };
  const channel = [vmsan, "exec", "-i", "--sudo", vm, ...sshd, "-i"].join(" ");
  const sides: Record<string, Ssh> = {
    "vmsan ssh": { options: words(ours.options), target: `root@${ours.host}` },
    "OpenSSH, same channel": {
      options: words({ ...theirs, ProxyCommand: channel }),
      target: "root@guest",
    },
    "OpenSSH, network": {
      options: words({ ...theirs, Port: String(port) }),
      target: "root@127.0.0.1",
    },
  };
  const kept: Record<string, Ssh> = {};
  for (const [name, side] of Object.entries(sides)) {
    const place = join(dir, name.replaceAll(/\W+/g, ""));
    mkdirSync(place);
    kept[name] = await withMaster(side, { ...own, dir: place });
  }

  const compare = async (
    what: string,
    command: string,
    times: number,
    input?: string,
  ): Promise<void> => {
    const turns: Record<string, () => Promise<Cost>> = {};
    for (const [name, { options, target }] of Object.entries(kept)) {
      const call: [string, ...string[]] = ["ssh", ...options, target, command];
      turns[name] = () =>
        costOf(input === undefined ? call : ["sh", "-c", 'exec "$@" <"$0"', input, ...call], {
          daemon: vmm,
        });
    }
    const costs = await byTurns(times, turns);
    const first = Object.values(costs)[0]?.wallMs ?? Number.NaN;
    for (const [name, { wallMs, daemonCpuMs: vmmCpuMs }] of Object.entries(costs)) {
      const ratio = first / wallMs;
      report({ bench: "ssh", what, with: name, rounds: times, wallMs, vmmCpuMs, ratio });
    }
  };
  await compare("a command", "true", rounds);
  const big = join(dir, "big");
  writeFileSync(big, randomFillSync(Buffer.alloc(Number(flags.mib) << 20)));
  await compare(`${flags.mib} MiB up`, "cat >/dev/null", 3, big);
  await compare(`${flags.mib} MiB down`, `head -c ${Number(flags.mib) << 20} /dev/zero`, 3);
});
