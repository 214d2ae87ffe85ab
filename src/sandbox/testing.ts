/** The composer's surroundings for tests: guests are processes of this host, everything else is nothing. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { AgentChannel } from "../agent/channel.ts";
import { closedPolicy } from "../model/policy.ts";
import type { SnapshotRecord } from "../model/snapshot.ts";
import { agentBinary } from "../util/package.ts";
import { layoutOf } from "../util/paths.ts";
import { FakeDriver } from "../vmm/fake/driver.ts";
import { PrivateNetworkStore } from "../network/private/store.ts";
import { VolumeStore } from "../volumes/store.ts";
import { createShares } from "./shares.ts";
import type { Stages } from "./stages.ts";
import { Admission } from "./starting/admission.ts";

/** A snapshot with memory, without files, of a VM without anything. */
export const bareSnapshot: SnapshotRecord = {
  schema: 1,
  id: "snap-00000001",
  createdAt: "2026-01-01T00:00:00.000Z",
  vm: { id: "vm-00000001" },
  memory: true,
  driver: "qemu",
  machine: { vmm: "QEMU 7.2.22", accelerator: "tcg", cpu: "max" },
  kernel: { path: "/kernel" },
  initramfs: "/initramfs",
  kernelArgs: [],
  vcpus: 1,
  memMib: 128,
  diskSizeBytes: 2 ** 30,
  disks: [],
  card: false,
  defaults: { env: [] },
  policy: closedPolicy("none"),
  files: [],
  pauseMs: 0,
};

/** A log that nobody reads. */
export const quietLog = { info: (): void => undefined, error: (): void => undefined };

/**
 * Stages that make nothing but what the fake driver needs.
 * @param root VMSAN_DIR
 */
export function fakeStages(root: string, changes: Partial<Stages> = {}): Stages {
  const driver = new FakeDriver(agentBinary());
  const volumes = new VolumeStore(join(root, "volumes"));
  const nothing = { removed: [], failed: [] };
  return {
    prepareBase: async () => ({ rootfs: join(root, "base.ext4"), runtime: "base" }),
    shareBase: async () => undefined,
    releaseBase: async () => undefined,
    bootFiles: async () => ({ kernel: "/none", initramfs: "/none" }),
    chooseDriver: async () => ({ driver, accelerator: "none", reason: "a test" }),
    driver: () => driver,
    createUpper: async (path) => writeFile(path, ""),
    cloneRoot: async () => undefined,
    networks: {
      attach: async () => ({}),
      resume: async () => undefined,
      onArrival: () => undefined,
      onPeers: () => undefined,
      onSecrets: () => undefined,
      place: async () => undefined,
      cut: () => undefined,
      isUp: () => false,
      update: async () => undefined,
      detach: async () => nothing,
      forget: async () => undefined,
      sweep: async () => nothing,
    },
    volumes,
    privateNetworks: new PrivateNetworkStore(join(root, "networks")),
    shares: createShares(layoutOf(root), volumes, quietLog),
    sweep: async () => nothing,
    openChannel: (running, token) =>
      new AgentChannel({ open: (signal) => running.connect(signal), token, build: "test" }),
    admission: new Admission(),
    bootLimitMs: () => 20_000,
    ...changes,
  };
}
