/** OpenSSH to compare with: an sshd and an open master that go away with the measurement. */
import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { userInfo } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "../../test/fixtures/ports.ts";
import type { Bench } from "./bench.ts";

/** How to reach an sshd. */
export interface Ssh {
  /** Options of ssh, scp and sftp. */
  options: string[];
  /** `user@host`. */
  target: string;
}

/** Packages whose files make an sshd run that is not installed. */
const PACKAGES = ["openssh-server", "libwrap0"];

/**
 * The sshd of this host, or the one of Debian's package, unpacked and not installed: no service is
 * started, no user made.
 * @returns its path, and the environment that it needs
 */
export function findSshd(dir: string): { path: string; env: NodeJS.ProcessEnv } {
  if (existsSync("/usr/sbin/sshd")) return { path: "/usr/sbin/sshd", env: process.env };
  const root = join(dir, "openssh");
  mkdirSync(root, { recursive: true });
  execFileSync("apt-get", ["download", "-qq", ...PACKAGES], { cwd: root, stdio: "ignore" });
  for (const file of readdirSync(root).filter((name) => name.endsWith(".deb")))
    execFileSync("dpkg-deb", ["--extract", join(root, file), root]);
  const machine = process.arch === "arm64" ? "aarch64" : "x86_64";
  const libraries = ["lib", "usr/lib"].map((lib) => join(root, lib, `${machine}-linux-gnu`));
  return {
    path: join(root, "usr/sbin/sshd"),
    env: { ...process.env, LD_LIBRARY_PATH: libraries.join(":") },
  };
}

/**
 * The command that runs sshd. As root it wants a user `sshd`, which only the package's installation
 * makes: where there is none, sshd alone sees one, in a mount namespace of its own.
 */
function sshdCommand(path: string, dir: string): string[] {
  const sshd = [path, "-D", "-f", join(dir, "sshd_config")];
  const users = readFileSync("/etc/passwd", "latin1");
  if (process.geteuid?.() !== 0 || /^sshd:/m.test(users)) return sshd;
  const passwd = join(dir, "passwd");
  writeFileSync(passwd, `${users}sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n`);
  const script = 'mount --bind "$1" /etc/passwd && shift && exec "$@"';
  return ["unshare", "--mount", "--", "sh", "-c", script, "sh", passwd, ...sshd];
}

/** A program that ends with this process, however this one ends. */
function tied(command: readonly string[], env: NodeJS.ProcessEnv, bench: Bench): ChildProcess {
  const child = spawn("setpriv", ["--pdeathsig", "TERM", "--", ...command], {
    stdio: "ignore",
    env,
  });
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  bench.defer(async () => {
    child.kill();
    await ended;
  });
  return child;
}

/**
 * An sshd of our own on the loopback, with keys of its own.
 * @returns undefined, and says why, where there is no OpenSSH and none can be fetched
 */
export async function localSshd(bench: Bench): Promise<Ssh | undefined> {
  const { dir } = bench;
  let found: ReturnType<typeof findSshd>;
  try {
    execFileSync("ssh", ["-V"], { stdio: "ignore" });
    found = findSshd(dir);
  } catch (error) {
    console.error(`without ssh to compare with: ${String(error)}`);
    return undefined;
  }
  const { path, env } = found;
  for (const key of ["host", "user"])
    execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", join(dir, key)]);
  const port = await freePort();
  const lines = [
    `Port ${port}`,
    "ListenAddress 127.0.0.1",
    `HostKey ${join(dir, "host")}`,
    `AuthorizedKeysFile ${join(dir, "user.pub")}`,
    "StrictModes no",
    "UsePAM no",
    "PermitRootLogin yes",
    `PidFile ${join(dir, "sshd.pid")}`,
    // bash reads a profile for a command by ssh unless it believes to be an inner one: like with like.
    "SetEnv SHLVL=5",
    "Subsystem sftp internal-sftp",
  ];
  writeFileSync(join(dir, "sshd_config"), `${lines.join("\n")}\n`);
  // Where sshd confines itself as root; its package's service makes it at boot.
  if (process.geteuid?.() === 0) mkdirSync("/run/sshd", { recursive: true });
  tied(sshdCommand(path, dir), env, bench);
  return clientOf(`${userInfo().username}@127.0.0.1:${port}`, join(dir, "user"), dir);
}

/** Options for a target `user@host:port`. */
export function clientOf(address: string, key: string | undefined, dir: string): Ssh {
  const [target = "", port = "22"] = address.split(/:(?=\d+$)/);
  const settings = [
    "StrictHostKeyChecking=no",
    `UserKnownHostsFile=${join(dir, "known")}`,
    "BatchMode=yes",
    "LogLevel=ERROR",
    `Port=${port}`,
  ];
  return {
    options: [
      ...settings.flatMap((setting) => ["-o", setting]),
      ...(key === undefined ? [] : ["-i", key]),
    ],
    target,
  };
}

/** The same with a master that is open: no key exchange, no login for each command. */
export async function withMaster(ssh: Ssh, bench: Bench): Promise<Ssh> {
  const path = join(bench.dir, "master");
  const options = [...ssh.options, "-o", `ControlPath=${path}`];
  for (let tries = 0; !existsSync(path); tries += 1) {
    if (tries === 20) throw new Error(`no master for ${ssh.target}`);
    const master = tied(["ssh", ...options, "-M", "-N", ssh.target], process.env, bench);
    while (!existsSync(path) && master.exitCode === null) await sleep(50);
    // An sshd that does not listen yet.
    if (master.exitCode !== null) await sleep(200);
  }
  return { ...ssh, options };
}
