/**
 * bench/bulk: bytes and small files into a guest and out of it, against OpenSSH's server in the same guest, by turns: through
 * standard input and output of a command, by `cp`, and trees of small files, where ssh has tar at both ends.
 *
 *   node bench/bulk.ts [--rounds N] [--mib N] [--files N]      in the VMSAN_DIR that is set
 *
 * In a VM of the base image that goes away with the measurement; ssh goes over its network, by a connection that is kept.
 * Prints JSON lines: time, rate, CPU of the client and of the VM's process, and the ratio of vmsan's time to ssh's.
 */
import { randomBytes, randomFillSync } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { bench } from "./lib/bench.ts";
import { guestWithSshd } from "./lib/guest-sshd.ts";
import { vmsan } from "./lib/home.ts";
import { byTurns, costOf, report } from "./lib/measure.ts";
import type { Cost } from "./lib/measure.ts";
import { clientOf, withMaster } from "./lib/sshd.ts";

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    mib: { type: "string", default: "100" },
    files: { type: "string", default: "5000" },
  },
});
const rounds = Number(flags.rounds);
const bytes = Number(flags.mib) << 20;
const SMALL_BYTES = 2000;
const FILES_A_DIRECTORY = 100;

/** A tree of small files. */
function makeTree(dir: string): void {
  for (let i = 0; i < Number(flags.files); i += 1) {
    const parent = join(dir, `d${Math.floor(i / FILES_A_DIRECTORY)}`);
    mkdirSync(parent, { recursive: true });
    writeFileSync(join(parent, `f${i}`), randomBytes(SMALL_BYTES));
  }
}

await bench("bulk", async (own) => {
  const { dir } = own;
  const { vm, vmm, port } = await guestWithSshd(own);
  const { options, target } = await withMaster(
    clientOf(`root@127.0.0.1:${port}`, join(dir, "user"), dir),
    own,
  );
  /** A line of the shell; its words are `$1` and so on. */
  const shell = (line: string, ...words: string[]): [string, ...string[]] => [
    "sh",
    "-ec",
    line,
    "sh",
    ...words,
  ];
  const compare = async (
    what: string,
    size: number,
    ours: [string, ...string[]],
    theirs: [string, ...string[]],
  ): Promise<void> => {
    const turn = (command: [string, ...string[]]) => async (): Promise<Cost> =>
      await costOf(command, { daemon: vmm });
    const costs = await byTurns(rounds, { vmsan: turn(ours), ssh: turn(theirs) });
    const ratio = costs.vmsan.wallMs / costs.ssh.wallMs;
    for (const [name, { wallMs, cpuMs, daemonCpuMs: vmmCpuMs }] of Object.entries(costs)) {
      const mibASecond = size / 2 ** 20 / (wallMs / 1000);
      report({
        bench: "bulk",
        what,
        with: name,
        rounds,
        wallMs,
        mibASecond,
        cpuMs,
        vmmCpuMs,
        ratio,
      });
    }
  };

  const big = join(dir, "big");
  writeFileSync(big, randomFillSync(Buffer.alloc(bytes)));
  const ssh = ["ssh", ...options, target] as const;
  const feed = 'from=$1; shift; exec "$@" <"$from"';
  await compare(
    `${flags.mib} MiB by standard input`,
    bytes,
    shell(feed, big, vmsan, "exec", "--sudo", "-i", vm, "sh", "-c", "cat >/dev/null"),
    shell(feed, big, ...ssh, "cat >/dev/null"),
  );
  await compare(
    `${flags.mib} MiB by standard output`,
    bytes,
    [vmsan, "exec", "--sudo", vm, "head", "-c", String(bytes), "/dev/zero"],
    [...ssh, `head -c ${bytes} /dev/zero`],
  );
  const back = join(dir, "back");
  await compare(
    `${flags.mib} MiB up`,
    bytes,
    [vmsan, "cp", big, `${vm}:/tmp/bulk`],
    ["scp", "-q", ...options, big, `${target}:/tmp/bulk.scp`],
  );
  await compare(
    `${flags.mib} MiB down`,
    bytes,
    [vmsan, "cp", `${vm}:/tmp/bulk`, back],
    ["scp", "-q", ...options, `${target}:/tmp/bulk.scp`, `${back}.scp`],
  );

  const tree = join(dir, "tree");
  makeTree(tree);
  const treeBytes = Number(flags.files) * SMALL_BYTES;
  for (const name of ["vmsan", "tar"]) mkdirSync(join(dir, "trees", name), { recursive: true });
  const intoGuest =
    'dir=$1; shift; tar -C "$dir" -cf - tree | "$@" "mkdir -p /tmp/tar && tar -C /tmp/tar -xf -"';
  const outOfGuest = 'dir=$1; shift; "$@" "tar -C /tmp/tar -cf - tree" | tar -C "$dir" -xf -';
  await compare(
    `${flags.files} files of ${SMALL_BYTES} bytes up`,
    treeBytes,
    [vmsan, "cp", tree, `${vm}:/tmp`],
    shell(intoGuest, dir, ...ssh),
  );
  await compare(
    `${flags.files} files of ${SMALL_BYTES} bytes down`,
    treeBytes,
    [vmsan, "cp", `${vm}:/tmp/tree`, join(dir, "trees/vmsan")],
    shell(outOfGuest, join(dir, "trees/tar"), ...ssh),
  );
});
