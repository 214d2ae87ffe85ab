import { expect, test } from "vitest";
import type { RequestOptions } from "../agent/transport.ts";
import { thaw } from "./freeze.ts";
import type { LiveVm } from "./freeze.ts";

test("a guest that never says that it goes on is given up: nothing else of its VM could be done", async () => {
  const request = async (_method: string, _path: string, { signal }: RequestOptions = {}) =>
    await new Promise<never>((_resolve, reject) => {
      signal?.addEventListener("abort", () => reject(signal.reason as Error));
    });
  const vm = { channel: { request } } as unknown as LiveVm;
  await expect(thaw(vm, 0n, 20)).rejects.toMatchObject({ code: "ERR_TIMEOUT_AGENT" });
});
