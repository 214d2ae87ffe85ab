import type { Readable } from "node:stream";
import { expect, test, vi } from "vitest";
import { VmsanError } from "../../../model/errors.ts";
import type { Pod, PodRecord } from "../../../schema/pod.ts";
import { Slots } from "../../../util/flow/slots.ts";
import type { Vm } from "../../../client/vm.ts";
import type { PodPlan } from "../spec/plan.ts";
import { Container } from "./container.ts";
import type { ContainerContext } from "./container.ts";

// Pauses are turns.
vi.mock("node:timers/promises", () => ({
  setTimeout: async (_ms: number, value: unknown) =>
    await new Promise((resolve) => void setImmediate(resolve, value)),
}));

// A command that runs for ever.
vi.mock("../../../containers/main.ts", async (original) => ({
  ...(await original<object>()),
  spawnMain: () => ({
    id: "stream-1",
    started: Promise.resolve(),
    exit: new Promise(() => undefined),
  }),
}));

/** A container whose VM can be removed once that was asked so often, and what it says meanwhile. */
function removable(failures: number): {
  container: Container;
  record: PodRecord;
  complaints: unknown[];
  stays: string[];
} {
  const [complaints, stays]: [unknown[], string[]] = [[], []];
  const record: PodRecord = { uid: "u", namespace: "n", name: "a", restarts: 0, vm: "vm-1" };
  let left = failures;
  const vmsan = {
    remove: async () => {
      left -= 1;
      await (left < 0 ? Promise.resolve() : Promise.reject(new Error("the disk is full")));
    },
  };
  const context = {
    vmsan,
    removing: new Slots(1),
    complain: (error: unknown) => complaints.push(error),
    onStays: (message: string) => stays.push(message),
  } as unknown as ContainerContext;
  return {
    container: new Container({ name: "main", image: "a" }, record, context),
    record,
    complaints,
    stays,
  };
}

test("a VM that cannot be removed is tried for as long as it takes, and that is told once", async () => {
  const { container, record, complaints, stays } = removable(50);
  await container.remove();
  expect(record.vm).toBeUndefined();
  expect(complaints).toHaveLength(50);
  expect(stays).toEqual(["cannot remove vm-1: the disk is full"]);
});

test("an agent that ends tries no longer: the next one does", async () => {
  const { container, record } = removable(Infinity);
  const removing = container.remove();
  await container.release();
  await expect(removing).rejects.toThrow("the disk is full");
  expect(record.vm).toBe("vm-1");
});

test("a command that runs, and cannot be written down, is not started again", async () => {
  const complaints: unknown[] = [];
  const record: PodRecord = { uid: "u", namespace: "n", name: "a", restarts: 0 };
  const store = {
    logDir: () => "/nonexistent/log",
    save: () => {
      throw new Error("the disk is full");
    },
  };
  const complain = (error: unknown): unknown => complaints.push(error);
  const context = { store, complain } as unknown as ContainerContext;
  const container = new Container({ name: "main", image: "a" }, record, context);
  container.vm = { id: "vm-1" } as unknown as Vm;
  await container.launch({ idle: true } as unknown as PodPlan);
  expect(container.run?.stream.id).toBe("stream-1");
  expect(complaints).toEqual([new Error("the disk is full")]);
});

test("a user who is not root finds the file for its last words", async () => {
  const written: [string, object | undefined, string][] = [];
  const vm = (user: string): unknown => ({
    id: "vm-1",
    view: { defaults: { user } },
    fill: async (content: Readable, place: string, options?: object) => {
      written.push([place, options, Buffer.concat(await content.toArray()).toString("latin1")]);
      // What stands there may be such that nothing can be mounted over it.
      const [code, message, why, fix] = ["ERR_AGENT_MOUNT", "", "", ""];
      throw new VmsanError({ code, message, why, fix });
    },
  });
  const record: PodRecord = { uid: "u", namespace: "n", name: "a", restarts: 0 };
  const spec = { name: "main", image: "a", terminationMessagePath: "/dev/custom-log" };
  for (const user of ["", "root", "0:0", "1000"]) {
    const vmsan = { create: async () => await Promise.resolve(vm(user)) };
    const container = new Container(spec, record, { vmsan } as unknown as ContainerContext);
    await container.make(
      { metadata: {}, spec: {} } as Pod,
      {
        vm: {},
        files: { places: [], mounts: [] },
        hosts: [],
      } as unknown as PodPlan,
      { signal: new AbortController().signal, onProgress: () => undefined },
    );
  }
  expect(written.map(([place]) => place)).toEqual(["/dev/custom-log"]);
  expect(written[0]?.[1]).toMatchObject({ shape: "file", writable: true });
  expect(written[0]?.[2]).toMatch(/\0message\0+0000666\0/);
});

test("no VM is made for who must not be root, and would be", async () => {
  const record: PodRecord = { uid: "u", namespace: "n", name: "a", restarts: 0 };
  const spec = { name: "main", image: "a", securityContext: { runAsNonRoot: true } };
  const prepare = async (ofImage: string, own?: string): Promise<void> => {
    const context = {
      vmsan: {
        images: { inspect: async () => await Promise.resolve({ config: { user: ofImage } }) },
      },
      images: { fetch: async () => await Promise.resolve("never") },
      volumes: { ensure: async () => await Promise.resolve() },
    } as unknown as ContainerContext;
    await new Container(spec, record, context).prepare(
      { metadata: {}, spec: {} } as Pod,
      { vm: own === undefined ? {} : { user: own }, groups: [], volumes: [] } as unknown as PodPlan,
      { signal: new AbortController().signal, onProgress: () => undefined },
    );
  };
  await expect(prepare("1000")).resolves.toBeUndefined();
  await expect(prepare("", "1000:0")).resolves.toBeUndefined();
  await expect(prepare("")).rejects.toThrow("would run as root");
  await expect(prepare("1000", "0")).rejects.toThrow("would run as root");
  await expect(prepare("www")).rejects.toThrow('"www" is no number');
});
