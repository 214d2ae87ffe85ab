/** A build ends before the host's disk is full. */
import { expect, test } from "vitest";
import { RESERVE, withRoom } from "./room.ts";

const { signal } = new AbortController();

test("nothing is begun without room, and what runs is ended when there is none any more", async () => {
  const full = async (): Promise<number> => Promise.resolve(RESERVE - 1);
  await expect(withRoom("/", signal, async () => "done", full)).rejects.toMatchObject({
    code: "ERR_DISK_FULL",
  });
  let looks = 0;
  const filling = async (): Promise<number> => Promise.resolve(RESERVE + 2 - (looks += 1));
  const endless = async (ending: AbortSignal): Promise<never> =>
    new Promise((_, reject) => {
      ending.addEventListener("abort", () => reject(ending.reason as Error));
    });
  await expect(withRoom("/", signal, endless, filling)).rejects.toMatchObject({
    code: "ERR_DISK_FULL",
  });
  expect(looks).toBeGreaterThan(2);
});

test("with room all is as without; a caller that gives up is heard", async () => {
  const plenty = async (): Promise<number> => Promise.resolve(2 * RESERVE);
  expect(await withRoom("/", signal, async () => "done", plenty)).toBe("done");
  const given = new AbortController();
  const waiting = withRoom(
    "/",
    given.signal,
    async (ending) => {
      given.abort(new Error("given up"));
      ending.throwIfAborted();
    },
    plenty,
  );
  await expect(waiting).rejects.toThrow("given up");
});
