/** More of Docker's Engine API on the fake driver: health checks of images, and what clients ask for less often. */
import { beforeAll, describe, expect, test, vi } from "vitest";
import { fakeEngine } from "./fixtures/docker-engine.ts";

// The first VM of an image waits for its disk, on a machine that has other work too.
vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 });

const engine = fakeEngine();

interface Inspected {
  Config: { Healthcheck?: Record<string, unknown> };
  State: { Health?: { Status: string; Log: { Output: string }[] } };
}

describe("the health check of an image", () => {
  const SECOND = 1e9;
  beforeAll(async () => {
    const Healthcheck = { Test: ["CMD-SHELL", "echo checked"], Interval: SECOND, Retries: 2 };
    await engine.load("healthy", { Healthcheck });
  });

  const inspect = async (id: string): Promise<Inspected> =>
    await engine.json<Inspected>("GET", `/containers/${id}/json`);

  test("is run, and what the request says of it counts", async () => {
    const { Config } = await engine.json<Inspected>("GET", "/images/healthy/json");
    expect(Config.Healthcheck).toEqual({
      Test: ["CMD-SHELL", "echo checked"],
      Interval: SECOND,
      Retries: 2,
    });
    const id = await engine.create({
      Image: "healthy",
      Cmd: ["sleep", "300"],
      Healthcheck: { Interval: SECOND / 20 },
    });
    await engine.ask("POST", `/containers/${id}/start`);
    await expect
      .poll(async () => (await inspect(id)).State.Health?.Status, { timeout: 60_000 })
      .toBe("healthy");
    const { Config: merged, State } = await inspect(id);
    expect(merged.Healthcheck).toMatchObject({ Interval: SECOND / 20, Retries: 2 });
    expect(State.Health?.Log[0]?.Output).toBe("checked\n");
    const [listed] = await engine.json<{ Status: string }[]>("GET", "/containers/json");
    expect(listed?.Status).toMatch(/^Up .* \(healthy\)$/);
    await engine.ask("DELETE", `/containers/${id}?force=1`);
  });

  test("is turned off by NONE", async () => {
    const id = await engine.create({
      Image: "healthy",
      Cmd: ["sleep", "300"],
      Healthcheck: { Test: ["NONE"] },
    });
    await engine.ask("POST", `/containers/${id}/start`);
    expect((await inspect(id)).State.Health).toBeUndefined();
    await engine.ask("DELETE", `/containers/${id}?force=1`);
  });
});
