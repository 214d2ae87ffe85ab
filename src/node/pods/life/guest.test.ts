import type { Readable } from "node:stream";
import { expect, test } from "vitest";
import type { Vm } from "../../../client/vm.ts";
import type { PodPlan } from "../spec/plan.ts";
import { furnish, terminationMessage } from "./guest.ts";

test("names of hosts are written, but not over what the pod mounts there", async () => {
  const names = async (targets: readonly string[]): Promise<Record<string, string>> => {
    const files: Record<string, string> = { "/etc/hosts": "", "/etc/hostname": "vm-1" };
    const vm = {
      view: { driver: "qemu" },
      openFile: async (path: string) => await Promise.resolve([Buffer.from(files[path] ?? "")]),
      writeFile: async (path: string, source: Readable) => {
        files[path] = Buffer.concat(await source.toArray()).toString();
      },
    } as unknown as Vm;
    const mounts = targets.map((target) => ({ target }));
    const plan = { hostname: "a", hosts: ["1.2.3.4\tx"], files: { places: [], mounts } };
    await furnish(vm, plan as unknown as PodPlan, []);
    return files;
  };
  const [hosts, hostname] = ["127.0.1.1\ta\n1.2.3.4\tx\n", "a\n"];
  expect(await names([])).toEqual({ "/etc/hosts": hosts, "/etc/hostname": hostname });
  expect(await names(["/etc/hosts"])).toEqual({ "/etc/hosts": "", "/etc/hostname": hostname });
  expect(await names(["/etc"])).toEqual({ "/etc/hosts": "", "/etc/hostname": "vm-1" });
});

test("of a termination message without an end no more is read than is told", async () => {
  let sent = 0;
  const text = await terminationMessage(
    {
      readFile: async (_path, onData, options) => {
        // With the rights of who has run there, and not through a link.
        expect(options).toMatchObject({ noFollow: true });
        expect(options).not.toHaveProperty("user");
        for (; sent < 1000; sent += 1) {
          options?.signal?.throwIfAborted();
          await onData(Buffer.alloc(1024, "a"));
        }
      },
    },
    "/said",
  );
  expect(text).toBe("a".repeat(4096));
  expect(sent).toBeLessThan(10);
});
