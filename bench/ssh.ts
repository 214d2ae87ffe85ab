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
import { randomFillSync } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { bench } from "./lib/bench.ts";
import { callVmsan, vmsan } from "./lib/home.ts";
import { byTurns, costOf, report } from "./lib/measure.ts";
import type { Cost } from "./lib/measure.ts";
import { guestWithSshd } from "./lib/guest-sshd.ts";
import { withMaster } from "./lib/sshd.ts";
import type { Ssh } from "./lib/sshd.ts";

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "30" },
    mib: { type: "string", default: "16" },
  },
});
const rounds = Number(flags.rounds);

/** Options of ssh as words. */
const words = (options: Record<string, string>): string[] =>
  Object.entries(options).flatMap(([name, value]) => ["-o", `${name}=${value}`]);

await bench("ssh", async (own) => {
  const { env } = process;
  const { dir } = own;
  const { vm, vmm, port, sshd } = await guestWithSshd(own);

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
    // The block names the VM's default user, which would come before one in the target.
    "vmsan ssh": { options: words({ ...ours.options, User: "root" }), target: ours.host },
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
