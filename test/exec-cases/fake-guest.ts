/** A guest of the fake driver with a channel to its agent. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AgentChannel } from "../../src/agent/channel.ts";
import { newToken } from "../../src/agent/handshake.ts";
import { startStream } from "../../src/agent/streams.ts";
import type { VmSpec } from "../../src/model/vm.ts";
import { newVmId } from "../../src/util/names.ts";
import { agentBinary } from "../../src/util/package.ts";
import type { RunningVm } from "../../src/vmm/driver.ts";
import { FakeDriver } from "../../src/vmm/fake/driver.ts";
import type { StartCommand } from "./run.ts";

/** The guest and how to reach it. */
export interface FakeGuest {
  channel: AgentChannel;
  vm: RunningVm;
  /** Temporary directory of its own. */
  dir: string;
  start: StartCommand;
  close: () => Promise<void>;
}

/** Start an agent process and a channel to it; `close` leaves nothing. */
export async function fakeGuest(): Promise<FakeGuest> {
  const dir = await mkdtemp(join(tmpdir(), "vmsan-guest-"));
  const id = newVmId();
  const spec: VmSpec = {
    id,
    dir: join(dir, id),
    vcpus: 1,
    memMib: 128,
    kernel: "/none",
    initramfs: "/none",
    kernelArgs: [],
    disks: [],
    isolation: { seccomp: false, pidNamespace: false, cgroup: false, networkNamespace: false },
  };
  const driver = new FakeDriver(process.env["VMSAN_AGENT"] ?? agentBinary());
  const vm = await driver.start(spec, new AbortController().signal);
  const channel = new AgentChannel({
    open: (signal) => vm.connect(signal),
    token: newToken(),
    build: "test",
  });
  return {
    channel,
    vm,
    dir,
    start: (streamSpec, options) => startStream(channel, streamSpec, options),
    close: async () => {
      channel.close();
      await vm.kill();
      await rm(dir, { recursive: true, force: true });
    },
  };
}
