/**
 * Snapshots and clones of VMs that really run: what is there in a clone, what differs, what is refused.
 * VMSAN_TEST_SCALE (default 1) multiplies the clones; 20 makes 100, in batches.
 */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { listStreams } from "../../../src/agent/commands.ts";
import type { Vm } from "../../../src/client/vm.ts";
import type { DiskAttachment } from "../../../src/model/vm.ts";
import { installation, temporary } from "../../fixtures/ladder.ts";
import { tool } from "../images.ts";
import { errorCode, strayProcesses, tree, vmsan, vmsanJson, vmsanOk } from "../support.ts";

const COUNT = Math.ceil(5 * Number(process.env["VMSAN_TEST_SCALE"] ?? 1));
const BATCH = 20;
/** Emulated, by processors that others use too: limits are for what hangs. */
const LIMIT_MS = 600_000 + COUNT * 30_000;
const BIG = 200_000_000;
const PORT = 7000;
const SERVER = { network: "tcp", host: "127.0.0.1", port: PORT } as const;
const DAY_MS = 86_400_000;

/**
 * A program with all that a program can have: an open, deleted file with a position, a listening
 * socket, a counter, a clock that it watches, a connection with another network namespace, as
 * containers have, and one that nobody there has accepted yet. Its first act in a VM of another generation is to draw what must be the VM's own.
 * It tells all to whoever connects.
 */
const WITNESS = String.raw`
use strict; use IO::Socket::INET; $SIG{PIPE} = "IGNORE";
open my $held, "<", "/root/held" or die; readline $held; unlink "/root/held";
sub slurp { open my $f, "<", $_[0] or return ""; local $/; my $text = <$f>; $text =~ s{\s+$}{}; $text }
sub monotonic { my $b = "\0" x 16; syscall(228, 1, $b); my ($s, $n) = unpack "qq", $b; $s * 1e9 + $n }
sub draw { my $b; open my $f, "<:raw", "/dev/urandom"; sysread $f, $b, $_[0]; unpack "H*", $b }
exec qw(ip netns exec far perl -MIO::Socket::INET -e), 'my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => "10.99.0.2", LocalPort => 7100) or die;
  my $c = $s->accept; while (sysread $c, my $b, 1) { syswrite $c, $b }' unless fork;
my $far; select undef, undef, undef, 0.1 until $far = IO::Socket::INET->new("10.99.0.2:7100");
my $late = IO::Socket::INET->new("10.99.0.2:7100") or die;
sub far { syswrite $far, "x"; return "gone" unless sysread $far, my $b, 1; syswrite($late, "x") ? "answers" : "gone before it was accepted" }
my $server = IO::Socket::INET->new(Listen => 50, LocalAddr => "0.0.0.0", LocalPort => ${PORT}) or die;
sub isn {
  my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1") or die;
  my $c = IO::Socket::INET->new("127.0.0.1:" . $s->sockport) or die;
  setsockopt $c, 6, 19, pack "i", 1; setsockopt $c, 6, 20, pack "i", 2;
  my $n = unpack "I", getsockopt $c, 6, 21; setsockopt $c, 6, 19, pack "i", -1; $n
}
my ($count, $back, $last, $generation, %drawn) = (0, 0, monotonic(), "");
sub look {
  my $g = slurp("/run/vmsan/generation");
  return if $g eq $generation;
  $generation = $g;
  %drawn = (random => draw(10000), uuid => slurp("/proc/sys/kernel/random/uuid"), isn => isn());
}
while (1) {
  my $now = monotonic(); $back++ if $now < $last; $last = $now; $count++;
  look();
  my $in = ""; vec($in, fileno $server, 1) = 1;
  next unless select $in, undef, undef, 0.02;
  my $c = $server->accept or next;
  # It may have been frozen between its look and the caller.
  look();
  my $line = readline $held; chomp $line;
  print $c "{\"count\":$count,\"back\":$back,\"held\":\"$line\",\"tmpfs\":\"" . slurp("/dev/shm/t") . "\",\"generation\":\"$generation\",\"far\":\"" . far() . "\"";
  print $c ",\"$_\":\"$drawn{$_}\"" for sort keys %drawn;
  print $c "}"; close $c;
}`;

/** Host keys made in a VM, by the host's program. */
const KEYGEN = `cd /opt/keys; ./ld-linux* --library-path . ./ssh-keygen -q -t ed25519 -N "" -f key`;

interface Witness {
  count: number;
  back: number;
  held: string;
  tmpfs: string;
  far: string;
  generation: string;
  random: string;
  uuid: string;
  isn: string;
}

/** What the program of a VM tells. */
async function ask(vm: Vm): Promise<Witness> {
  let text = "";
  const connection = await vm.dial(SERVER);
  for await (const chunk of connection) text += String(chunk);
  connection.destroy();
  return JSON.parse(text) as Witness;
}

/** Run a script in a VM as root, which must succeed. */
async function sh(vm: Vm, script: string): Promise<string> {
  const { exitCode, stdout, stderr } = await vm.exec(["sh", "-c", script], { user: "root" });
  expect({ exitCode, stderr: stderr.toString() }).toEqual({ exitCode: 0, stderr: "" });
  return stdout.toString().trim();
}

/** How far a VM's wall clock is off at least, in milliseconds: it was read between two looks at ours. */
async function clockOff(vm: Vm): Promise<number> {
  const from = Date.now();
  const guest = Number(await sh(vm, "date +%s%3N"));
  return Math.max(0, from - guest, guest - Date.now());
}

const here = installation("base");
const work = temporary();
const find = async (name: string): Promise<Vm> => await here.vmsan.get(name);
const cli = (): { dir: string } => ({ dir: here.dir });

/** A stopped VM's own disk with all its layers as one image; e2fsck must call it clean. */
async function cleanDisk(vm: Vm): Promise<string> {
  const path = join(here.dir, "vms", vm.id, "vm.json");
  const record = JSON.parse(readFileSync(path, "utf8")) as { spec: { disks: DiskAttachment[] } };
  const disk = record.spec.disks.find(({ role }) => role === "upper");
  if (disk === undefined) throw new Error(`${vm.id} has no disk of its own`);
  let image: Record<string, unknown> | undefined;
  for (const [layer, filename] of [...(disk.backing ?? []), disk.path].entries()) {
    const backing = image === undefined ? {} : { backing: image };
    image = {
      driver: layer === 0 ? "raw" : "qcow2",
      file: { driver: "file", filename },
      ...backing,
    };
  }
  const whole = join(work.path, `${vm.id}.ext4`);
  await tool("qemu-img", "convert", "-O", "raw", `json:${JSON.stringify(image)}`, whole);
  await tool("e2fsck", "-fn", whole);
  return whole;
}

/** SHA-256 of the big file on a disk. */
async function bigFile(disk: string): Promise<string> {
  const to = join(work.path, "big");
  await tool("debugfs", "-R", `dump /upper/root/big ${to}`, disk);
  const sum = (await tool("sha256sum", to)).split(" ")[0] ?? "";
  await rm(to);
  return sum;
}

describe("clones", () => {
  test(
    "of a VM in the middle of its work have all of it, and are each somebody else",
    async () => {
      const source = await here.vmsan.create({ name: "a", memory: 384 });
      const keys = join(work.path, "keys");
      await mkdir(keys);
      const libraries = (await tool("ldd", "/usr/bin/ssh-keygen")).match(/\/\S+/g) ?? [];
      await tool("cp", "-L", "/usr/bin/ssh-keygen", ...libraries, keys);
      await writeFile(join(keys, "witness.pl"), WITNESS);
      await source.upload([keys], "/opt", { user: "root" });
      await sh(
        source,
        `mkdir -p /etc/vmsan/restored.d; cd /etc/vmsan/restored.d
      printf '#!/bin/sh\\necho "$VMSAN_REASON $VMSAN_GENERATION" >>/etc/vmsan/hook.log\\n' >10-log
      chmod 755 10-log; seq 1000 >/root/held; echo tmpfs >/dev/shm/t
      perl -e 'print "x" x 1000000 for 1..${BIG / 1e6}' >/root/big
      ip netns add far; ip link add near type veth peer name there netns far; ip addr add 10.99.0.1/24 dev near; ip link set near up
      ip -n far addr add 10.99.0.2/24 dev there; ip -n far link set there up`,
      );
      const counting = source.spawn(
        ["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"],
        {},
        { onStdout: () => undefined },
      );
      counting.exit.catch(() => undefined);
      await counting.started;
      const witness = source.spawn(["perl", "/opt/keys/witness.pl"], {
        user: "root",
        detach: true,
      });
      witness.exit.catch(() => undefined);
      const answers = { timeout: LIMIT_MS / 4, interval: 1000 };
      await expect.poll(() => ask(source).catch(() => undefined), answers).toBeDefined();
      // A snapshot of yesterday.
      await sh(source, `date -s @$(($(date +%s) - ${DAY_MS / 1000})) >/dev/null`);
      const before = await ask(source);

      const snapshot = await source.snapshot({ name: "s" });
      expect(snapshot.sizes.shared).toBeGreaterThan(0.95 * BIG);
      const place = join(here.dir, "snapshots", snapshot.id);
      for (const name of await readdir(place)) {
        expect([name, (await stat(join(place, name))).mode & 0o077]).toEqual([name, 0]);
      }
      const seen: Record<string, string>[] = [];
      const lookAt = async (vm: Vm, name: string): Promise<void> => {
        const { count, back, held, tmpfs, far, generation, ...own } = await ask(vm);
        expect(count).toBeGreaterThan(before.count);
        expect({ back, held, tmpfs, far }).toEqual({
          back: 0,
          held: String(Number(before.held) + 1),
          tmpfs: "tmpfs",
          far: "answers",
        });
        expect(own.random).toHaveLength(20_000);
        expect(await clockOff(vm)).toBeLessThan(50);
        const [hook, host, ...rest] = (
          await sh(
            vm,
            `${KEYGEN}; cat /etc/vmsan/hook.log /etc/hostname /etc/machine-id /sys/class/net/eth0/address /opt/keys/key.pub; tail -n 1 /etc/hosts | tr '\\t' ' ' | cut -d ' ' -f 1`,
          )
        ).split("\n");
        expect([hook, host]).toEqual([`clone ${generation}`, name]);
        const [machine = "", mac = "", key = "", address = ""] = rest;
        seen.push({ ...own, generation, machine, mac, key, address });
        const streams = await listStreams(vm.transport);
        expect(streams.find(({ id }) => id === counting.id)).toMatchObject({
          running: true,
          detach: true,
        });
      };
      for (let done = 0; done < COUNT; done += BATCH) {
        const count = Math.min(BATCH, COUNT - done);
        const name = `c${done}`;
        const made = await here.vmsan.clone("s", { count, name, labels: { k: "v" } });
        expect(made.map(({ view }) => view.name)).toEqual(
          Array.from({ length: count }, (_, index) =>
            count === 1 ? name : `${name}-${index + 1}`,
          ),
        );
        await Promise.all(made.map(async (vm) => await lookAt(vm, vm.view.name ?? "")));
        for (const vm of done === 0 ? made.slice(2) : made) await vm.remove();
      }
      for (const what of Object.keys(seen[0] ?? {})) {
        expect(new Set(seen.map((one) => one[what])).size, what).toBe(COUNT);
      }

      // What a clone does is its own affair; the source has noticed nothing.
      const [one, two] = [await find("c0-1"), await find("c0-2")];
      await sh(one, "echo other >/root/big; rm /dev/shm/t; sync");
      const held = String(Number(before.held) + 1);
      expect(await ask(source)).toMatchObject({ back: 0, held, far: "answers" });

      // A clone of a clone, which has no memory of its own to share: two at once.
      await sh(two, "echo second >/dev/shm/t");
      const grandchildren = await here.vmsan.fork(two.id, { count: 2, name: "d" });
      for (const vm of grandchildren) {
        expect(await ask(vm)).toMatchObject({ tmpfs: "second", back: 0 });
        await vm.remove();
      }
      expect(
        (await tree(join(here.dir, "snapshots"))).filter((name) => name.includes("new")),
      ).toEqual([]);
      await one.remove();
      const whole = createHash("sha256").update(Buffer.alloc(BIG, "x")).digest("hex");
      for (const vm of [source, two]) {
        await vm.stop();
        expect(await bigFile(await cleanDisk(vm))).toBe(whole);
      }
      await two.remove();
    },
    LIMIT_MS,
  );

  test(
    "what a snapshot has fixed, another machine's and a damaged one are refused with the reason",
    async () => {
      expect(await errorCode(["create", "--snapshot", "s", "--memory", "512"], cli())).toBe(
        "ERR_SNAPSHOT_FIXED",
      );
      expect(await errorCode(["create", "--snapshot", "none"], cli())).toBe(
        "ERR_VM_SNAPSHOT_NOT_FOUND",
      );
      expect(await errorCode(["create", "--snapshot", "s", "--runtime", "base"], cli())).toBe(
        "ERR_VALIDATION_FLAGS",
      );
      const file = join(here.dir, "out.tar");
      await vmsanOk(["snapshot", "export", "s", "-o", file], cli());
      expect((await stat(file)).mode & 0o077).toBe(0);
      const { snapshotId } = await vmsanJson<{ snapshotId: string }>(
        ["snapshot", "import", "-i", file, "--name", "t"],
        cli(),
      );
      await rm(file);
      const place = join(here.dir, "snapshots", snapshotId);
      const document = join(place, "snapshot.json");
      const text = readFileSync(document, "utf8");
      /** The refusal of a clone, which offers a cold start. */
      const refusal = async (): Promise<unknown> => {
        await vmsan(["daemon", "stop"], cli());
        const refused: unknown = await here.vmsan.clone("t").catch((error: unknown) => error);
        expect(refused).toMatchObject({ fix: expect.stringContaining("--cold") as string });
        return refused;
      };
      for (const [from, to, why] of [
        [/"vmm": "[^"]+"/, '"vmm": "QEMU 1.0"', /VMM was QEMU 1.0/],
        [/"cpu": "[^"]+"/, '"cpu": "another"', /processor was another/],
      ] as const) {
        await writeFile(document, text.replace(from, to));
        expect(await refusal()).toMatchObject({
          code: "ERR_SNAPSHOT_INCOMPATIBLE",
          why: expect.stringMatching(why) as string,
        });
      }
      await writeFile(document, text);
      const state = readFileSync(join(place, "state"));
      state[1000] = (state[1000] ?? 0) ^ 1;
      await writeFile(join(place, "state"), state);
      expect(await refusal()).toMatchObject({
        code: "ERR_SNAPSHOT_DAMAGED",
        why: expect.stringContaining("state has been changed") as string,
      });
      // The disk is whole: a VM boots from it.
      const cold = await here.vmsan.clone("t", { cold: true });
      expect(await sh(cold[0] as Vm, "stat -c %s /root/big")).toBe(String(BIG));
      for (const vm of await here.vmsan.list()) await here.vmsan.remove(vm.id, { force: true });
      await vmsanOk(["snapshot", "prune", "--all"], cli());
      expect(existsSync(place)).toBe(false);
      expect(await tree(join(here.dir, "snapshots"))).toEqual([]);
      expect(strayProcesses(here.dir)).toEqual([]);
    },
    LIMIT_MS,
  );

  test(
    "memory that one clone has no more use for stays that of the snapshot and of the others",
    async () => {
      const fresh = "head -c 60000000 /dev/urandom >/dev/shm/fresh; sha256sum </dev/shm/fresh";
      let source = await here.vmsan.create({ name: "s", memory: 256, warm: false });
      for (const from of ["boot", "clone"]) {
        const sum = await sh(source, fresh);
        const { id } = await source.snapshot({ name: from });
        await source.remove();
        const [one, other] = (await here.vmsan.clone(id, { count: 2 })) as [Vm, Vm];
        const memory = async (): Promise<string> => {
          const files = join(here.dir, "snapshots", id);
          return await tool("sh", "-c", 'find "$0" -name memory | xargs sha256sum', files);
        };
        const kept = await memory();
        // A kernel tells the machine of blocks that nothing uses 2 s after they have become free.
        await sh(one, "rm /dev/shm/fresh; sleep 6");
        expect(await sh(other, "sha256sum </dev/shm/fresh"), from).toBe(sum);
        expect(await memory(), from).toBe(kept);
        await other.remove();
        source = one;
      }
      await source.remove();
      await vmsanOk(["snapshot", "prune", "--all"], cli());
    },
    LIMIT_MS,
  );
});
