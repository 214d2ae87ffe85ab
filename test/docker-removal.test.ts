/** What Docker's clients remove on the fake driver, and what of it others need. */
import { describe, expect, test } from "vitest";
import { fakeEngine } from "./fixtures/docker-engine.ts";

const engine = fakeEngine();

describe("a network that is removed", () => {
  const remove = async (name: string): Promise<{ status: number; text: string }> =>
    await engine.ask("DELETE", `/networks/${name}`);

  test("leaves no VM without it that is no container, be it stopped", async () => {
    const { vmsan } = engine.made;
    await vmsan.networks.create("native");
    const vm = await vmsan.create({ driver: "fake", image: "alpine" });
    await vm.stop();
    await vmsan.networks.connect("native", vm.id);
    const { status, text } = await remove("native");
    expect([status, text]).toEqual([403, expect.stringContaining("has active endpoints")]);
    expect(text).toContain(`the VM ${vm.view.name ?? vm.id}, which is no container`);
    expect((await vm.refresh()).networks.map(({ network }) => network)).toEqual(["native"]);
    await vm.remove();
    expect((await remove("native")).status).toBe(204);
  });

  test("is missed by a container that was stopped, when that is started", async () => {
    await engine.json("POST", "/networks/create", { Name: "app" }, 201);
    const HostConfig = { NetworkMode: "app" };
    const stopped = await engine.create({ Cmd: ["true"], HostConfig });
    const created = await engine.create({ Cmd: ["true"], HostConfig });
    await engine.ask("POST", `/containers/${stopped}/start`);
    await engine.ask("POST", `/containers/${stopped}/wait`);
    await expect.poll(async () => (await remove("app")).status).toBe(204);
    for (const id of [stopped, created]) {
      const { status, text } = await engine.ask("POST", `/containers/${id}/start`);
      expect([status, text]).toEqual([404, expect.stringContaining("network app not found")]);
      await engine.ask("DELETE", `/containers/${id}`);
    }
  });
});
