/**
 * Root in a guest does its worst. The guest may suffer; the host, its daemon and every other VM do
 * not, commands end with a status or a coded error in bounded time, and what remains can be removed.
 */
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { booted, installation } from "../../fixtures/ladder.ts";
import { strayProcesses, vmsan } from "../support.ts";

const here = installation("base");
const box = booted(here, { memory: 256, disk: 1, name: "hostile" });
let daemonPid = 0;
const figures: string[] = [];

beforeAll(async () => {
  daemonPid = (await here.vmsan.daemon.info())?.pid ?? 0;
});
afterAll(() => console.log(`hostile guests: ${figures.join("; ")}`));

/** Resident memory of the daemon in MiB. */
function daemonMib(): number {
  const status = readFileSync(`/proc/${daemonPid}/status`, "utf8");
  return Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024);
}

interface Ended {
  code: number;
  out: string;
  oomKilled: boolean;
  timedOut: boolean;
}

/** As root in the guest. */
async function root(script: string, timeoutMs = 60_000): Promise<Ended> {
  const { exitCode, stdout, oomKilled, timedOut } = await box.vm.exec(["sh", "-c", script], {
    user: "root",
    timeoutMs,
  });
  return { code: exitCode, out: stdout.toString(), oomKilled, timedOut };
}

/** A case, after which the guest still answers, or does so again, and the daemon is as it was. */
function survived(name: string, body: () => Promise<void>): void {
  test(name, async () => {
    const since = performance.now();
    await body();
    expect((await root("echo alive")).out).toBe("alive\n");
    expect((await here.vmsan.daemon.info())?.pid).toBe(daemonPid);
    figures.push(
      `${name} ${((performance.now() - since) / 1000).toFixed(1)} s, ${daemonMib()} MiB`,
    );
    expect(daemonMib()).toBeLessThan(300);
  });
}

survived("the agent cannot be killed, stopped or talked over", async () => {
  const { out } = await root(
    "kill -9 1; kill -STOP 1; for port in /dev/vport*; do head -c 100000 /dev/urandom >$port; done 2>&1; head -c 10000 /dev/urandom >/dev/ttyS0; echo done",
  );
  expect(out).toMatch(/busy[\s\S]*done/);
});

survived("memory exhausted", async () => {
  const { code, oomKilled } = await root(`exec perl -e '$x = "a" x (3 << 30)'`);
  // Refused by the kernel at once, or killed for it; never the agent.
  expect(code === 137 ? oomKilled : code > 0).toBe(true);
  // Where a program's pages come back from the disk as fast as they are dropped the kernel sees no lack of memory for long:
  // the time limit ends that.
  const hog = await root("perl -e 'push @a, \"x\" x 1000000 while 1'; echo $?", 30_000);
  expect(hog.timedOut || /137|1\n/.test(hog.out)).toBe(true);
});

survived("disk full, and room again", async () => {
  const { out } = await root(
    "fallocate -l 2G /big 2>/dev/null; dd if=/dev/zero of=/rest bs=64k 2>&1 | grep -o 'No space'; echo x >/y || echo full; rm /big /rest; echo z >/y && cat /y",
  );
  expect(out).toMatch(/No space\nfull\nz\n$/);
});

survived("the clock off by years", async () => {
  for (const date of ["2099-01-01", "1971-01-01", "2038-01-20"]) {
    expect((await root(`date -s ${date} >/dev/null && date +%F`)).out).toBe(`${date}\n`);
    const limited = await root("sleep 100", 1000);
    expect(limited).toMatchObject({ code: 124, timedOut: true });
  }
});

survived("a fork bomb", async () => {
  const bomb = await root("bomb() { bomb | bomb & }; bomb; sleep 100", 4000);
  expect(bomb.timedOut || bomb.code !== 0).toBe(true);
});

test.each([
  ["missing", 127, "ERR_AGENT_NOT_FOUND"],
  ["plain", 126, "ERR_AGENT_NOT_EXECUTABLE"],
  ["lost", 126, "ERR_AGENT_NOT_EXECUTABLE"],
  ["foreign", 126, "ERR_AGENT_NOT_EXECUTABLE"],
])("a command that cannot be one: /%s gives %i and says why", async (name, status, code) => {
  // The last one has the header of a program for another machine (EM_SPARCV9).
  await root(
    "cd /; echo text >plain; printf '#!/no/such/interpreter\\n' >lost; printf '\\177ELF\\2\\1\\1\\0\\0\\0\\0\\0\\0\\0\\0\\0\\2\\0\\53\\0' >foreign; chmod 755 lost foreign",
  );
  const outcome = await vmsan(["exec", "hostile", `/${name}`], here);
  expect(outcome.stderr).toContain(code);
  expect(outcome.stderr).toMatch(/why: .+\n {2}fix: .+/);
  expect(outcome.code).toBe(status);
});

test("a kernel panic ends the command in words; the VM is stopped, starts again and goes", async () => {
  const since = performance.now();
  await expect(
    root("echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 1000"),
  ).rejects.toMatchObject({
    code: expect.stringMatching(/^ERR_VM_NOT_RUNNING$|^ERR_AGENT_/),
    fix: expect.anything(),
  });
  await expect
    .poll(async () => (await box.vm.refresh()).status, { timeout: 10_000 })
    .toBe("stopped");
  figures.push(`panic ${((performance.now() - since) / 1000).toFixed(1)} s`);
  await box.vm.start();
  expect((await root("echo up again")).out).toBe("up again\n");
  await box.vm.remove();
  await sleep(200);
  expect(readdirSync(join(here.dir, "vms"))).toEqual([]);
  expect(strayProcesses(here.dir)).toEqual([]);
});
