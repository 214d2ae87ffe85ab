import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { layoutOf, type Layout } from "../util/paths.ts";
import { claimUid, releaseUids, uidClaims, uidDirectory } from "../vmm/uids.ts";
import type { Check } from "./check.ts";
import { allChecks, runDoctor } from "./doctor.ts";
import { defaultInterface, droppingForwardChains, nameServers } from "./checks-network.ts";
import { findRemains } from "./remains.ts";

let dir: string;
let layout: Layout;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "vmsan-doctor-"));
  layout = layoutOf(join(dir, "v"));
  await mkdir(layout.vms, { recursive: true });
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(dir, { recursive: true });
});

/** Run the checks of these names (of all checks) in the test's VMSAN_DIR. */
async function look(...names: string[]) {
  const checks = allChecks.filter(({ name }) => names.includes(name));
  const report = await runDoctor({ layout, checks });
  return Object.fromEntries(report.checks.map((check) => [check.name, check]));
}

describe("running checks", () => {
  const ok: Check = { name: "good", run: async () => ({ status: "ok", detail: "Fine." }) };

  test("one that throws and one that hangs fail alone; order is kept", async () => {
    const hangs: Check = { name: "hangs", run: () => new Promise(() => undefined) };
    const throws: Check = { name: "throws", run: () => Promise.reject(new Error("oops")) };
    const report = await runDoctor({ layout, checks: [hangs, throws, ok], timeoutMs: 50 });
    expect(report.ok).toBe(false);
    expect(report.checks.map(({ name, status }) => [name, status])).toEqual([
      ["hangs", "fail"],
      ["throws", "fail"],
      ["good", "ok"],
    ]);
    expect(report.checks[1]?.detail).toContain("oops");
  });

  test("all run at the same time", async () => {
    // Each waits for the other: one after the other they would never end.
    const first = Promise.withResolvers<void>();
    const second = Promise.withResolvers<void>();
    const meet = (name: string, mine: () => void, other: Promise<void>): Check => ({
      name,
      run: async () => {
        mine();
        await other;
        return { status: "ok", detail: "Met." };
      },
    });
    const checks = [
      meet("a", first.resolve, second.promise),
      meet("b", second.resolve, first.promise),
    ];
    expect((await runDoctor({ layout, checks })).ok).toBe(true);
  });

  test("warnings do not fail it; --fix repairs only what offers it", async () => {
    const repaired: string[] = [];
    const broken: Check = {
      name: "broken",
      run: async () => ({
        status: "fail",
        detail: "Broken.",
        repair: async () => {
          repaired.push("broken");
          return "Mended.";
        },
      }),
    };
    const warns: Check = { name: "warns", run: async () => ({ status: "warn", detail: "Slow." }) };
    expect((await runDoctor({ layout, checks: [warns] })).ok).toBe(true);
    expect((await runDoctor({ layout, checks: [broken] })).ok).toBe(false);
    expect(repaired).toEqual([]);
    const report = await runDoctor({ layout, checks: [broken, warns], fix: true });
    expect(report.checks).toMatchObject([{ status: "ok", fixed: "Mended." }, { status: "warn" }]);
  });

  test("aborting ends it", async () => {
    const hangs: Check = { name: "hangs", run: () => new Promise(() => undefined) };
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(runDoctor({ layout, checks: [hangs], signal })).rejects.toThrow("enough");
  });

  test("names are kebab-case and unique, and every warning on this host has a remedy", async () => {
    const names = allChecks.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(name).toMatch(/^[a-z]+(-[a-z]+)*$/);
    const report = await runDoctor({ layout });
    for (const { status, fix, name } of report.checks) {
      if (status === "warn" || status === "fail") expect(fix, name).toBeTruthy();
    }
    expect(await readdir(join(dir, "v"))).toEqual(expect.not.arrayContaining([".vmsan-doctor-"]));
  });
});

describe("what checks see", () => {
  test("an empty VMSAN_DIR warns, with setup as remedy", async () => {
    const seen = await look("kernel", "runtimes", "leftovers", "vmsan-dir", "disk-space");
    expect(seen).toMatchObject({
      kernel: { status: "warn", fix: "vmsan setup" },
      runtimes: { status: "warn", fix: "vmsan setup" },
      leftovers: { status: "ok" },
      "vmsan-dir": { status: "ok" },
    });
  });

  test("a VMSAN_DIR that others can write fails", async () => {
    await chmod(layout.root, 0o777);
    expect(await look("vmsan-dir")).toMatchObject({ "vmsan-dir": { status: "fail" } });
  });

  test("a kernel whose bytes have changed fails", async () => {
    const home = join(layout.kernels, "k1");
    await mkdir(home, { recursive: true });
    const kernel = {
      schema: 1,
      id: "k1",
      version: "6.1.0",
      arch: "x86_64",
      sizeBytes: 3,
      sha256: createHash("sha256").update("abc").digest("hex"),
      modules: [],
    };
    await writeFile(join(home, "kernel.json"), JSON.stringify(kernel));
    await writeFile(join(home, "vmlinux"), "abc");
    expect(await look("kernel")).toMatchObject({ kernel: { status: "ok" } });
    await writeFile(join(home, "vmlinux"), "abd");
    expect(await look("kernel")).toMatchObject({ kernel: { status: "fail" } });
  });

  test("an agent that is missing or no program fails", async () => {
    vi.stubEnv("VMSAN_AGENT", join(dir, "agent"));
    expect(await look("agent")).toMatchObject({ agent: { status: "fail" } });
    await writeFile(join(dir, "agent"), "#!/bin/sh\n");
    expect(await look("agent")).toMatchObject({ agent: { status: "fail" } });
  });

  test("programs are looked for on PATH and in the system's directories", async () => {
    const tools = join(dir, "tools");
    await mkdir(tools);
    for (const [name, version] of [
      ["firecracker", "Firecracker v1.9.1"],
      ["jailer", "Jailer v1.9.1"],
    ] as const) {
      await writeFile(join(tools, name), `#!/bin/sh\necho "${version}"\n`);
      await chmod(join(tools, name), 0o755);
    }
    vi.stubEnv("PATH", `${tools}:${process.env["PATH"] ?? ""}`);
    expect(await look("firecracker")).toMatchObject({
      firecracker: { status: "warn", detail: expect.stringContaining("too old") },
    });
    await writeFile(join(tools, "firecracker"), '#!/bin/sh\necho "Firecracker v1.16.1"\n');
    expect(await look("firecracker")).toMatchObject({
      firecracker: { status: "warn", fix: "Install both of one release." },
    });
  });

  test("a daemon of another version warns; a socket for everybody fails", async () => {
    await mkdir(layout.run, { recursive: true });
    const server = createServer().listen(layout.socket);
    await once(server, "listening");
    try {
      const check = allChecks.filter(({ name }) => name === "daemon");
      const ask = async (version: string) =>
        (await runDoctor({ layout, checks: check, daemon: async () => ({ version, pid: 1 }) }))
          .checks[0];
      expect(await ask("0.0.1")).toMatchObject({ status: "warn" });
      const { packageVersion } = await import("../util/package.ts");
      await chmod(layout.socket, 0o666);
      expect(await ask(packageVersion())).toMatchObject({ status: "fail" });
      await chmod(layout.socket, 0o600);
      expect(await ask(packageVersion())).toMatchObject({ status: "ok" });
    } finally {
      server.close();
    }
  });
});

describe("leftovers", () => {
  test("a VMM without a record, its directory and old temporary files are found and removed", async () => {
    const id = "vm-0123abcd";
    const home = join(layout.vms, id);
    await mkdir(home);
    await mkdir(layout.kernels);
    const old = join(layout.kernels, ".tmp-old");
    await writeFile(old, "");
    await utimes(old, 0, 0);
    await writeFile(join(layout.kernels, ".tmp-new"), "");
    const vmm = spawn("sh", ["-c", "read line", id], { cwd: home, stdio: "pipe" });
    const bystander = spawn("sleep", ["60"], { cwd: home, stdio: "ignore" });
    try {
      await Promise.all([once(vmm, "spawn"), once(bystander, "spawn")]);
      const ended = once(vmm, "exit");
      const found = await findRemains(layout, new AbortController().signal);
      expect(found.map(({ kind }) => kind)).toEqual(["process", "vm", "temporary"]);
      const checks = allChecks.filter(({ name }) => name === "leftovers");
      const report = await runDoctor({ layout, checks, fix: true });
      expect(report.checks[0]).toMatchObject({ status: "ok", fixed: expect.stringContaining(id) });
      expect(await ended).toEqual([null, "SIGKILL"]);
      expect(await readdir(layout.vms)).toEqual([]);
      expect(await readdir(layout.kernels)).toEqual([".tmp-new"]);
      expect(bystander.exitCode).toBeNull();
    } finally {
      vmm.kill("SIGKILL");
      bystander.kill("SIGKILL");
    }
  });

  test("user ids and networks of VMs without a record are given back, those of others stay", async () => {
    const [gone, there] = ["vm-0123abcd", "vm-4567abcd"];
    const uids = uidDirectory(layout.probes);
    const range = { first: 1_999_000_000, count: 10 };
    const lease = (vmId: string, slot: number): string =>
      JSON.stringify({
        schema: 1,
        vmId,
        slot,
        prefix6: "fd00:0000:0000",
        uid: 1_999_000_000 + slot,
        generation: 1,
        policy: {
          mode: "deny-all",
          allowedDomains: [],
          allowedCidrs: [],
          deniedCidrs: [],
          allowedPorts: [],
          allowHostPorts: [],
        },
      });
    await mkdir(layout.network, { recursive: true });
    for (const [slot, id] of [gone, there].entries()) {
      await claimUid(uids, range, id, join(layout.vms, id));
      await writeFile(join(layout.network, `${id}.json`), lease(id, slot));
    }
    await mkdir(join(layout.vms, there));
    await writeFile(join(layout.vms, there, "vm.json"), "{}");
    try {
      const checks = allChecks.filter(({ name }) => name === "leftovers");
      const report = await runDoctor({ layout, checks, fix: true });
      expect(report.checks[0]).toMatchObject({
        status: "ok",
        fixed: `Removed: user id of ${gone}, network of ${gone}.`,
      });
      expect(await readdir(layout.network)).toEqual([`${there}.json`]);
      const ours = (await uidClaims(uids)).filter(({ vmDir }) => vmDir.startsWith(layout.vms));
      expect(ours.map(({ vm }) => vm)).toEqual([there]);
      expect(await findRemains(layout, new AbortController().signal)).toEqual([]);
    } finally {
      for (const id of [gone, there]) await releaseUids(uids, id);
    }
  });

  test("while a daemon listens, VMs are left alone", async () => {
    await mkdir(join(layout.vms, "vm-0123abcd"));
    await mkdir(layout.run);
    const server = createServer().listen(layout.socket);
    await once(server, "listening");
    expect(await findRemains(layout, new AbortController().signal)).toEqual([]);
    server.close();
    await once(server, "close");
    expect(await findRemains(layout, new AbortController().signal)).toHaveLength(1);
  });
});

describe("reading the system's files", () => {
  test("resolv.conf", () => {
    const text =
      "# nameserver 9.9.9.9\nnameserver 127.0.0.53\n nameserver fe80::1%eth0\nnameserver x\n";
    expect(nameServers(text)).toEqual(["127.0.0.53", "fe80::1%eth0"]);
  });

  test("default route", () => {
    const head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n";
    const row = (device: string, to: string, mask: string): string =>
      `${device}\t${to}\t0100A8C0\t0003\t0\t0\t0\t${mask}\t0\t0\t0\n`;
    expect(defaultInterface(head + row("eth1", "0000A8C0", "00FFFFFF"))).toBeUndefined();
    expect(defaultInterface(head + row("eth0", "00000000", "00000000"))).toBe("eth0");
    expect(defaultInterface(head + row("tun0", "00000000", "00000080"))).toBeUndefined();
  });

  test("chains that drop what is forwarded", () => {
    const chain = (table: string, hook: string, policy: string) => ({
      chain: { family: "ip", table, name: "F", hook, policy },
    });
    const nftables = [
      { metainfo: {} },
      chain("filter", "forward", "drop"),
      chain("filter", "input", "drop"),
      chain("nat", "forward", "accept"),
      chain("vmsan-vm-1", "forward", "drop"),
    ];
    expect(droppingForwardChains(JSON.stringify({ nftables }))).toEqual(["ip filter F"]);
  });
});
