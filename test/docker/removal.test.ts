/** What Docker's clients remove on the fake driver, and what of it others need. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { fakeEngine } from "../fixtures/docker-engine.ts";

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
      const leave = async (): Promise<number> =>
        (await engine.ask("POST", "/networks/app/disconnect", { Container: id, Force: true }))
          .status;
      expect(await leave()).toBe(200);
      expect(await leave()).toBe(404);
      expect((await engine.ask("POST", `/containers/${id}/start`)).status).toBe(204);
      await engine.ask("POST", `/containers/${id}/wait`);
      await engine.ask("DELETE", `/containers/${id}`);
    }
  });
});

describe("images of containers that were made and not started", () => {
  const made = async (image: string): Promise<string> =>
    await engine.create({ Image: image, Cmd: ["sh", "-c", "test $WHICH = first"] });

  test("are held against every prune and removal, from another command line too", async () => {
    const { images } = engine.made.vmsan;
    await engine.load("moved", { Env: ["WHICH=first"] });
    const id = await made("moved");
    await engine.load("moved", { Env: ["WHICH=second"] });
    await images.prune({ all: true });
    await engine.load("alpine");
    await engine.json("POST", "/images/prune");
    expect(await engine.ask("POST", `/containers/${id}/start`)).toMatchObject({ status: 204 });
    expect(await engine.json("POST", `/containers/${id}/wait`)).toMatchObject({ StatusCode: 0 });
    await engine.ask("DELETE", `/containers/${id}`);
  });

  test("lose their names by force alone, and are there until the container is removed", async () => {
    const { images } = engine.made.vmsan;
    await engine.load("named", { Env: ["WHICH=first"] });
    const [first, second] = [await made("named"), await made("named")];
    await expect(images.remove("named")).rejects.toMatchObject({
      code: "ERR_IMAGE_IN_USE",
      why: "It is used by containers of Docker's clients.",
    });
    expect((await engine.ask("DELETE", "/images/named")).status).toBe(409);
    await engine.json("DELETE", "/images/named?force=1");
    expect((await engine.ask("GET", "/images/named/json")).status).toBe(404);
    expect(await engine.ask("POST", `/containers/${first}/start`)).toMatchObject({ status: 204 });
    expect(await engine.json("POST", `/containers/${first}/wait`)).toMatchObject({ StatusCode: 0 });
    // A gateway that was killed has left what it held, and the next one knows no more than its documents.
    await engine.gateway?.close();
    await engine.serve();
    await engine.ask("DELETE", `/containers/${first}`);
    await images.prune();
    expect(await engine.ask("POST", `/containers/${second}/start`)).toMatchObject({ status: 204 });
    await engine.ask("DELETE", `/containers/${second}?force=1`);
    await engine.load("named", { Env: ["WHICH=first"] });
    expect(await engine.json("DELETE", "/images/named")).toContainEqual({
      Deleted: expect.any(String) as string,
    });
  });
});

test("an image stays held by a document that cannot be read, whatever is made meanwhile", async () => {
  const { images } = engine.made.vmsan;
  await engine.load("unread", { Env: ["WHICH=first"] });
  const id = await engine.create({ Image: "unread", Cmd: ["true"] });
  await engine.load("unread", { Env: ["WHICH=second"] });
  const path = join(engine.made.dir, "gateway/docker/containers", `${id}.json`);
  const document = await readFile(path);
  await engine.gateway?.close();
  await writeFile(path, "{");
  await engine.serve();
  const other = await engine.create({ Image: "unread", Cmd: ["true"] });
  await images.prune({ all: true });
  await engine.gateway?.close();
  await writeFile(path, document);
  await engine.serve();
  for (const each of [id, other]) {
    expect(await engine.ask("POST", `/containers/${each}/start`)).toMatchObject({ status: 204 });
    await engine.ask("DELETE", `/containers/${each}?force=1`);
  }
  await engine.load("alpine");
});

test("of a builder's cache nothing is pruned that is not asked for in whole", async () => {
  const prune = async (filters: object): Promise<{ status: number; text: string }> =>
    await engine.ask("POST", `/build/prune?filters=${encodeURIComponent(JSON.stringify(filters))}`);
  expect((await prune({ until: { "24h": true } })).status).toBe(200);
  expect((await prune({ "unused-for": ["1h30m"] })).status).toBe(200);
  expect((await prune({ until: ["yesterday-ish"] })).status).toBe(400);
  expect((await engine.ask("POST", "/build/prune?min-free-space=1000")).status).toBe(400);
  expect((await engine.ask("POST", "/build/prune?min-free-space=0")).status).toBe(200);
  expect((await prune({ type: ["exec.cachemount"] })).text).toContain("invalid filter 'type'");
});
