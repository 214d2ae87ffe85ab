import { expect, test } from "vitest";
import type { Vmsan } from "../../client/vmsan.ts";
import type { VmView } from "../../model/api.ts";
import type { GatewayKey } from "../../model/gateway.ts";
import { KEY_LABEL, Quotas, forkOf, occupied } from "./limits.ts";

const GIB = 2 ** 30;

test("forks count with their copies of volumes, also of those that are gone", async () => {
  const labels = { [KEY_LABEL]: "key" };
  const mount = { kind: "volume", target: "/data", readonly: false, nocopy: true };
  const vm = {
    labels,
    memMib: 512,
    diskSizeBytes: GIB,
    mounts: [
      { ...mount, name: "kept" },
      { ...mount, name: "read", readonly: true },
      { ...mount, name: "gone", copy: true },
    ],
  } as unknown as VmView;
  const vmsan = {
    list: async () => await Promise.resolve([vm]),
    volumes: {
      list: async () => await Promise.resolve([{ name: "kept", sizeBytes: 3 * GIB, labels }]),
    },
  } as unknown as Vmsan;
  const key = { id: "key", limits: { diskBytes: 28 * GIB } } as unknown as GatewayKey;
  const there = await occupied(vmsan, key);
  expect(there.map(({ diskSizeBytes }) => diskSizeBytes / GIB)).toEqual([11, 3]);
  const fork = await forkOf(vmsan, key, vm);
  expect(fork).toEqual({ memMib: 512, diskSizeBytes: 14 * GIB });
  const quotas = new Quotas();
  quotas.reserve(key, [fork], there)();
  expect(() => quotas.reserve(key, [fork, fork], there)).toThrow(/limit|may/i);
});

test("on a cluster, which has no volumes, a limit of disk is about the pods", async () => {
  const vms = [{ labels: {}, memMib: 512, diskSizeBytes: GIB, mounts: [] }];
  const vmsan = {
    cluster: true,
    list: async () => await Promise.resolve(vms),
    volumes: { list: async () => await Promise.reject(new Error("not offered on a cluster")) },
  } as unknown as Vmsan;
  const key = { id: "key", limits: { diskBytes: GIB } } as unknown as GatewayKey;
  expect(await occupied(vmsan, key)).toEqual(vms);
});
