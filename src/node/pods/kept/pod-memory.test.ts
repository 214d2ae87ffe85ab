import { expect, test, vi } from "vitest";
import type { Vm } from "../../../client/vm.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import { ApiError } from "../../../kube/api-server.ts";
import type { Pod } from "../../../schema/pod.ts";
import type { KeptMemory } from "./kept-memory.ts";
import { PodMemory } from "./pod-memory.ts";

// Pauses are turns.
vi.mock("node:timers/promises", () => ({
  setTimeout: async (_ms: number, value: unknown) =>
    await new Promise((resolve) => void setImmediate(resolve, value)),
}));

/** Whether a pod goes on where what is kept is told of in such ways, and what its owner is told. */
async function goesOn(...answers: (Error | Vm)[]): Promise<{ goes: boolean; told: string[] }> {
  const told: string[] = [];
  const take = async (): Promise<Vm> => {
    const answer = answers.shift();
    if (answer === undefined || answer instanceof Error) throw answer ?? new Error("asked again");
    return await Promise.resolve(answer);
  };
  const metadata = { annotations: { "vmsan.io/suspend": "memory" } };
  const memory = new PodMemory({
    kept: { take } as unknown as KeptMemory,
    vmsan: {} as Vmsan,
    pod: () => ({ metadata }) as unknown as Pod,
    event: (_type, reason, message) => told.push(`${reason}: ${message}`),
  });
  const goes = await memory.goOn(async () => await Promise.resolve(true));
  return { goes, told };
}

test("memory is not given up for an answer that does not come, but for one that does", async () => {
  const away = new Error("no answer");
  const ill = new ApiError(500, "", "GET", "ill");
  const { goes, told } = await goesOn(away, ill, away, ill, { id: "vm-1" } as unknown as Vm);
  expect(goes).toBe(true);
  expect(told).toEqual(["Resumed: it goes on with the memory that was kept, in vm-1"]);
  const none = new ApiError(404, "NotFound", "GET", "no account");
  const refused = await goesOn(none);
  expect(refused.goes).toBe(false);
  expect(refused.told).toEqual([expect.stringContaining("no account")]);
  const never = await goesOn(away, away, away, away, away);
  expect(never.goes).toBe(false);
  expect(never.told).toEqual([expect.stringContaining("no answer")]);
});
