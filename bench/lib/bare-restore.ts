/** What QEMU itself needs to load a snapshot and have its agent answer: nothing of vmsan around it. */
import { spawn } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { AgentChannel } from "../../src/agent/channel.ts";
import { hostArch } from "../../src/boot/kernel.ts";
import type { SnapshotRecord } from "../../src/model/snapshot.ts";
import type { VmSpec } from "../../src/model/vm.ts";
import { withLayer } from "../../src/snapshots/disks.ts";
import { packageVersion } from "../../src/util/package.ts";
import { connectUnix } from "../../src/util/socket-path.ts";
import { qemuArguments, qemuFiles } from "../../src/vmm/qemu/command.ts";
import { Qmp } from "../../src/vmm/qemu/qmp.ts";
import { processTreeCpu } from "./measure.ts";

/** Wait for something that is not there yet. */
async function soon<T>(attempt: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await attempt();
    } catch {
      await sleep(1);
    }
  }
}

/**
 * Load a snapshot of a VM without a card into a QEMU of its own and wait for the agent.
 * @param place the snapshot's directory
 * @returns milliseconds until the state was loaded, and until the agent had answered, and QEMU's processor time until then
 */
export async function bareRestore(
  place: string,
): Promise<{ loaded: number; answered: number; cpuMs: number }> {
  const record = JSON.parse(readFileSync(join(place, "snapshot.json"), "utf8")) as SnapshotRecord;
  const dir = mkdtempSync(join(tmpdir(), "vmsan-bare-"));
  const disks = await Promise.all(
    record.disks.map(async (disk) =>
      disk.readonly ? disk : await withLayer({ ...disk, path: join(place, disk.path) }, dir),
    ),
  );
  const spec: VmSpec = {
    id: record.vm.id,
    dir,
    vcpus: record.vcpus,
    memMib: record.memMib,
    kernel: "",
    initramfs: "",
    kernelArgs: [],
    disks,
    isolation: { seccomp: false, pidNamespace: false, cgroup: false, networkNamespace: false },
  };
  const arch = hostArch();
  const args = qemuArguments(spec, { arch, accelerator: "tcg" }, { memory: join(place, "memory") });
  const state = openSync(join(place, "state"), "r");
  const from = performance.now();
  const child = spawn(`qemu-system-${arch}`, args, {
    cwd: dir,
    stdio: ["ignore", "ignore", "inherit", state],
  });
  try {
    const never = new AbortController().signal;
    const monitor = await soon(() => Qmp.connect(join(dir, qemuFiles.monitor), never));
    await monitor.execute("migrate-set-capabilities", {
      capabilities: [{ capability: "x-ignore-shared", state: true }],
    });
    await monitor.execute("migrate-incoming", { uri: "fd:3" });
    for (;;) {
      const reply = (await monitor.execute("query-migrate")) as { status?: string };
      if (reply.status === "completed") break;
      await sleep(1);
    }
    const loaded = performance.now() - from;
    await monitor.execute("cont");
    const channel = new AgentChannel({
      open: (signal) => connectUnix(join(dir, qemuFiles.channel), signal),
      token: readFileSync(join(place, "token"), "utf8").trim(),
      build: packageVersion(),
    });
    await channel.ready();
    const answered = performance.now() - from;
    const cpuMs = processTreeCpu(child.pid ?? 0);
    channel.close();
    return { loaded, answered, cpuMs };
  } finally {
    closeSync(state);
    child.kill("SIGKILL");
    await new Promise((resolve) => child.once("close", resolve));
    rmSync(dir, { recursive: true, force: true });
  }
}
