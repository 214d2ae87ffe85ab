/**
 * Whatever is killed at whatever moment of a snapshot, a fork, a rollback, sleep or a template's
 * making: the VM is as it was or as it was to become, and nothing is left beyond that.
 * VMSAN_TEST_SCALE (default 1) multiplies the kills; 17 makes 100, from 2 on also of clones that wait. VMSAN_TEST_SEED repeats a run.
 */
import { readFileSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { Vm } from "../../../src/client/vm.ts";
import type { VmRecord } from "../../../src/model/vm.ts";
import { uidClaims, uidDirectory } from "../../../src/vmm/uids.ts";
import { installation } from "../../fixtures/ladder.ts";
import { processesOf, vmsan } from "../support.ts";

const KILLS = Math.ceil(6 * Number(process.env["VMSAN_TEST_SCALE"] ?? 1));
const LIMIT_MS = 600_000 + KILLS * 60_000;
/** For what a daemon that has just started, or a process that was just killed, is still busy with. */
const SOON = { timeout: 120_000, interval: 500 };
const SEED = Number(process.env["VMSAN_TEST_SEED"] ?? Date.now() % 1_000_000);

/** Random numbers below 1, the same for the same seed. */
let state = SEED;
function random(): number {
  state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
  return state / 2 ** 31;
}
const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;

const here = installation("disks");
let vm: Vm;
/** IDs of all VMs that there have been. */
const ids = new Set<string>();
const pins = async (): Promise<string[]> => await readdir(join(here.dir, "images/pins"));

/** Write what tells states apart to the VM's disk and to its memory. */
async function mark(value: string): Promise<void> {
  const script = `echo ${value} >/root/state; sync; echo ${value} >/dev/shm/state`;
  const { exitCode } = await vm.exec(["sh", "-c", script], { user: "root" });
  expect(exitCode).toBe(0);
}

/** What is on a VM's disk and in its memory. */
async function look(one: Vm): Promise<string> {
  const script = "cat /root/state /dev/shm/state 2>/dev/null | tr '\n' ' '";
  return (await one.exec(["sh", "-c", script], { user: "root" })).stdout.toString().trim();
}

beforeAll(async () => {
  // A VM whose snapshot carries another one's token: a clone, and what it was made of.
  const first = await here.vmsan.create({ memory: 128 });
  ids.add(first.id);
  vm = first;
  await mark("then");
  await first.snapshot({ name: "then" });
  [vm] = (await here.vmsan.clone("then")) as [Vm];
  ids.add(vm.id);
  await first.remove();
}, LIMIT_MS);

/** VMMs of this installation, templates' too; those that work on a path with that in it. */
function vmms(path = here.dir): number[] {
  return processesOf(path)
    .filter((line) => /^\d+ \S*qemu-system-/.test(line))
    .map((line) => Number(line.split(" ")[0]));
}

type Victim = "client" | "daemon" | "vmm";

/** Run a command and kill something at that moment. */
async function strike(args: string[], victim: Victim, afterMs: number): Promise<void> {
  let struck = Promise.resolve();
  const done = vmsan(args, {
    dir: here.dir,
    onProcess: (child) => {
      struck = sleep(afterMs).then(async () => {
        if (victim === "client") child.kill("SIGKILL");
        else if (victim === "daemon") await killDaemon();
        else for (const pid of vmms().slice(-1)) kill(pid);
      });
    },
  });
  await done;
  await struck;
}

/** Names in the directory of templates. */
async function templates(): Promise<string[]> {
  // ENOENT until the first one is begun.
  return await readdir(join(here.dir, "templates")).catch(() => []);
}

const ofImage = (name: string): boolean => /^[0-9a-f]{32}$/.test(name);
const RUN = ["run", "--warm", "--memory", "128", "--verbose", "base", "--", "true"];
/** For what is made when the host has a moment for it, which on a busy one is after a minute. */
const IN_A_MOMENT = { timeout: 400_000, interval: 200 };

/** A VM comes and goes. @returns what it said of its start */
async function runOne(env: Record<string, string> = {}): Promise<string> {
  let said = "";
  // On a busy host a daemon may not be there in time for the command that has started it.
  const once = async (): Promise<number | null> => {
    const { code, stderr } = await vmsan(RUN, { dir: here.dir, env });
    said = stderr;
    return code;
  };
  await expect.poll(once, IN_A_MOMENT).toBe(0);
  return said;
}

/** A template is made behind the answer: wait until it has begun, and strike there. */
async function strikeTemplate(victim: Victim, afterMs: number): Promise<void> {
  // One whose VMM was killed rests, as long as that daemon knows.
  await vmsan(["daemon", "stop"], { dir: here.dir });
  // A booted machine, which is made first; or the template of the image, once that is there.
  const gone = pick([(): boolean => true, ofImage]);
  for (const name of (await templates()).filter(gone)) {
    await rm(join(here.dir, "templates", name), { recursive: true });
  }
  await runOne();
  const begun = async (): Promise<boolean> =>
    (await templates()).some((name) => name.startsWith("."));
  await expect.poll(begun, IN_A_MOMENT).toBe(true);
  await sleep(afterMs);
  if (victim === "daemon") await killDaemon();
  else for (const pid of vmms(join(here.dir, "templates"))) kill(pid);
}

/** A clone that waits is made behind the answer of a warm start: strike there. */
async function strikeReady(victim: Victim, afterMs: number): Promise<void> {
  const env = { VMSAN_READY_CLONES: "1" };
  await vmsan(["daemon", "stop"], { dir: here.dir });
  // The first one boots, until there is a template.
  let said = await runOne(env);
  if (!said.includes('"answer"')) {
    await expect.poll(async () => (await templates()).some(ofImage), IN_A_MOMENT).toBe(true);
    said = await runOne(env);
  }
  expect(said).toContain('"answer"');
  // Besides the VM that is there all the time.
  expect((await readdir(join(here.dir, "vms"))).length).toBeGreaterThan(1);
  await sleep(afterMs);
  if (victim === "daemon") await killDaemon();
  else for (const pid of vmms().slice(-1)) kill(pid);
}

async function killDaemon(): Promise<void> {
  const info = await here.vmsan.daemon.info();
  if (info !== undefined) kill(info.pid);
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // ESRCH: it has ended by itself.
  }
}

/** What a VM's directory may hold. */
function allowed({ spec, status, suspended }: VmRecord): Set<string> {
  const names = spec.disks.flatMap(({ path, backing }) => [path, ...(backing ?? [])]);
  const own = names.filter((path) => path.startsWith(`${spec.dir}/`));
  return new Set([
    "vm.json",
    "token",
    "console.log",
    "vmm.log",
    ...own.map((path) => path.slice(spec.dir.length + 1)),
    ...(status === "suspended" && suspended !== undefined ? [suspended.dir] : []),
    ...(status === "running" ? ["ctl.sock", "qmp.sock", "net.sock", "root"] : []),
  ]);
}

/** Nothing is there beyond what the VMs and snapshots need that are listed. */
async function nothingElse(): Promise<void> {
  const vms = await here.vmsan.list();
  for (const { id } of vms) ids.add(id);
  const listed = vms.map(({ id }) => id);
  expect((await readdir(join(here.dir, "vms"))).toSorted()).toEqual(listed.toSorted());
  for (const id of listed) {
    const dir = join(here.dir, "vms", id);
    const record = JSON.parse(readFileSync(join(dir, "vm.json"), "utf8")) as VmRecord;
    const beyond = (await readdir(dir)).filter((name) => !allowed(record).has(name));
    expect({ id, status: record.status, beyond }).toMatchObject({ beyond: [] });
  }
  const snapshots = (await here.vmsan.snapshots.list()).map(({ id }) => id);
  expect((await readdir(join(here.dir, "snapshots"))).toSorted()).toEqual(snapshots.toSorted());
  const known = new Set([...listed, ...snapshots]);
  expect((await pins()).filter((name) => !known.has(name.slice(0, -5)))).toEqual([]);
  const networks = await readdir(join(here.dir, "network"));
  const leases = networks.filter((name) => name.startsWith("vm-")).map((name) => name.slice(0, -5));
  expect(leases.filter((id) => !known.has(id))).toEqual([]);
  const claims = await uidClaims(uidDirectory(join(here.dir, "probes")));
  const own = claims.filter(({ vmDir }) => vmDir.startsWith(`${here.dir}/`));
  expect(own.filter((claim) => !known.has(claim.vm))).toEqual([]);
  const running = vms.filter(({ status }) => status === "running").length;
  expect(vmms()).toHaveLength(running);
}

/** Operations, what they may leave in disk and memory, and how long they take. */
const operations: Record<string, { args: () => string[]; may: string[]; ms: number }> = {
  create: { args: () => ["snapshot", "create", vm.id], may: [], ms: 900 },
  fork: { args: () => ["fork", vm.id, "-n", "2"], may: [], ms: 2500 },
  restore: { args: () => ["restore", vm.id, "then"], may: ["then then"], ms: 1800 },
  suspend: { args: () => ["suspend", vm.id], may: [], ms: 900 },
  wake: { args: () => ["resume", vm.id], may: [], ms: 1200 },
  template: { args: () => [], may: [], ms: 4000 },
  // Beyond the default number of kills: warm.test.ts kills those that wait.
  ready: { args: () => [], may: [], ms: 2000 },
};

test(
  `${KILLS} kills, seed ${SEED}`,
  async () => {
    const names = Object.keys(operations);
    for (let round = 0; round < KILLS; round += 1) {
      const name = names[round % names.length] ?? "";
      const { args, may, ms } = operations[name] as (typeof operations)[string];
      const victim: Victim =
        name === "template" || name === "ready"
          ? pick(["daemon", "vmm"])
          : pick(["client", "daemon", "daemon", "vmm"] as const);
      const value = `n${round}`;
      const what = `round ${round}: ${name}, ${victim} killed, seed ${SEED}`;
      await mark(value);
      if (name === "wake") await vm.suspend();
      const after = Math.round(random() * ms);
      if (name === "template") await strikeTemplate(victim, after);
      else if (name === "ready") await strikeReady(victim, after);
      else await strike(args(), victim, after);

      // Whoever looks next starts the daemon that repairs.
      let { status } = await vm.refresh();
      if (victim === "client") {
        // The daemon finishes or undoes what the client had asked for; this call waits its turn.
        await vm.extendTimeout().catch(() => undefined);
        ({ status } = await vm.refresh());
      }
      if (victim === "vmm" && status === "running") {
        // It may have ended a moment ago, and the daemon not have seen that yet.
        await vi.waitFor(async () => {
          const ran = await vm.exec(["true"]).then(
            () => true,
            () => false,
          );
          ({ status } = await vm.refresh());
          expect(ran || status !== "running", what).toBe(true);
        }, SOON);
      }
      if (status === "suspended") await vm.resume();
      else if (status === "stopped") {
        expect(victim, what).toBe("vmm");
        await vm.start();
      } else expect(status, what).toBe("running");
      const wanted = [value, ...may.map((one) => one.split(" ")[0] ?? "")];
      const seen = (await look(vm)).split(" ");
      expect(wanted, what).toContain(seen[0]);
      if (status !== "stopped") expect(seen, what).toEqual([seen[0], seen[0]]);
      if (name === "template" || name === "ready") {
        await vmsan(["daemon", "stop"], { dir: here.dir });
        await here.vmsan.list();
        const left = (await templates()).filter((one) => one.startsWith("."));
        expect(left, what).toEqual([]);
      }
      // Clones that came to be are whole; what was not finished is not there.
      for (const view of await here.vmsan.list()) {
        ids.add(view.id);
        if (view.id === vm.id) continue;
        if (view.status === "running") {
          expect(await look(await here.vmsan.get(view.id)), what).toBe(`${value} ${value}`);
        }
        await here.vmsan.remove(view.id, { force: true });
      }
      await vi.waitFor(nothingElse, SOON);
      for (const { id, name: named } of await here.vmsan.snapshots.list()) {
        if (named === "then") continue;
        const [clone] = await here.vmsan.clone(id);
        expect(await look(clone as Vm), what).toBe(`${value} ${value}`);
        await clone?.remove();
        await here.vmsan.snapshots.remove(id);
      }
    }
    await vm.remove();
    await here.vmsan.snapshots.remove("then");
    await vi.waitFor(nothingElse, SOON);
  },
  LIMIT_MS,
);

afterAll(() => {
  for (const id of ids) {
    expect(processesOf(`guest=vmsan-${id}`)).toEqual([]);
  }
});
