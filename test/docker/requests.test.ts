/** Requests to Docker's Engine API whose words matter, on the fake driver: filters, mounts, networks, and what events tell of them. */
import { describe, expect, test } from "vitest";
import { fakeEngine, unframed } from "../fixtures/docker-engine.ts";
import { tarOf } from "../registry/fixture.ts";
import type { DockerEvent } from "../../src/gateway/docker/events.ts";

const engine = fakeEngine();

const message = async (method: string, path: string, body?: unknown): Promise<string> => {
  const { status, text } = await engine.ask(method, path, body);
  return `${status} ${(JSON.parse(text) as { message: string }).message}`;
};

describe("filters", () => {
  test.each(["/containers/json", "/images/json", "/networks", "/volumes", "/events"])(
    "%s refuses one that there is not, also when there is nothing to be filtered",
    async (path) => {
      const filters = encodeURIComponent(JSON.stringify({ bogus: { 1: true } }));
      expect(await message("GET", `${path}?filters=${filters}&until=1`)).toBe(
        "400 invalid filter 'bogus'",
      );
    },
  );

  test("labels, which `docker system prune` sends to all that prunes, keep the builder's cache", async () => {
    const filters = encodeURIComponent(JSON.stringify({ label: { "a=b": true } }));
    for (const path of ["containers", "networks", "volumes", "images", "build"]) {
      const { status } = await engine.ask("POST", `/${path}/prune?filters=${filters}`);
      expect([path, status]).toEqual([path, 200]);
    }
  });
});

describe("what would put data elsewhere than was asked for is refused", () => {
  const volume = (VolumeOptions: object): object => ({
    Mounts: [{ Type: "volume", Source: "data", Target: "/data", VolumeOptions }],
  });
  test.each([
    [volume({ Subpath: "/a" }), /^400 .* relative path within the volume/],
    [volume({ Subpath: "a/../../b" }), /^400 .* relative path within the volume/],
    [volume({ DriverConfig: { Name: "nfs" } }), /^400 --volume-driver nfs is not possible: /],
    [
      volume({ DriverConfig: { Name: "local", Options: { type: "nfs" } } }),
      /^400 volume-opt is not possible: /,
    ],
    [{ Binds: ["data:/data:bogus"] }, /^400 invalid mode: bogus$/],
    [{ Binds: ["data:/data:ro,rw"] }, /^400 invalid mode: ro,rw$/],
  ])("%j", async (HostConfig, words) => {
    const body = { Image: "alpine", Cmd: ["true"], HostConfig };
    expect(await message("POST", "/containers/create", body)).toMatch(words);
    expect(await engine.json("GET", "/volumes")).toMatchObject({ Volumes: [] });
  });

  test("and what changes nothing of that is taken", async () => {
    const mounts = volume({ Subpath: "", DriverConfig: { Name: "local", Options: null } });
    const more = { ...mounts, Binds: ["other:/other:z,rw,nocopy", "third:/third:"] };
    const id = await engine.create({ Cmd: ["true"], HostConfig: more });
    await engine.ask("DELETE", `/containers/${id}`);
  });
});

test("binds are shown with the propagation that was asked for", async () => {
  const bind = (Target: string, BindOptions?: object): object => ({
    Type: "bind",
    Source: engine.place.path,
    Target,
    BindOptions,
  });
  const Mounts = [bind("/a", { Propagation: "rslave" }), bind("/b")];
  const HostConfig = { Binds: [`${engine.place.path}:/c:ro,rshared`], Mounts };
  const id = await engine.create({ Cmd: ["true"], HostConfig });
  const inspected = await engine.json<{ Mounts: { Destination: string; Propagation: string }[] }>(
    "GET",
    `/containers/${id}/json`,
  );
  expect(
    Object.fromEntries(inspected.Mounts.map((one) => [one.Destination, one.Propagation])),
  ).toEqual({ "/a": "rslave", "/b": "rprivate", "/c": "rshared" });
  await engine.ask("DELETE", `/containers/${id}`);
  const odd = { Image: "alpine", HostConfig: { Mounts: [bind("/a", { Propagation: "odd" })] } };
  expect(await message("POST", "/containers/create", odd)).toBe(
    "400 invalid propagation mode: odd",
  );
});

test("a network that there is not is no image that is missing", async () => {
  // The command line pulls the image at each 404, and tells of that instead.
  const HostConfig = { NetworkMode: "nosuch" };
  expect(await message("POST", "/containers/create", { Image: "alpine", HostConfig })).toBe(
    "400 network nosuch not found",
  );
});

test("events tell of a container's networks and of commands in it, in Docker's order", async () => {
  const { Id: network } = await engine.json<{ Id: string }>(
    "POST",
    "/networks/create",
    { Name: "told" },
    201,
  );
  const HostConfig = { NetworkMode: "told" };
  const id = await engine.create({ Cmd: ["cat"], OpenStdin: true, HostConfig }, "teller");
  await engine.ask("POST", `/containers/${id}/start`);
  const body = { Cmd: ["true"], AttachStdout: true };
  const exec = await engine.json<{ Id: string }>("POST", `/containers/${id}/exec`, body, 201);
  await (
    await engine.hijack(`/exec/${exec.Id}/start`, "{}")
  ).all;
  await engine.ask("POST", `/containers/${id}/kill`);
  await engine.ask("POST", `/containers/${id}/wait`);
  const { text } = await engine.ask("GET", `/events?since=1&until=${Date.now() / 1000 + 0.5}`);
  const events = text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as DockerEvent);
  const own = events.filter(
    ({ Actor: { ID, Attributes } }) => ID === id || Attributes["container"] === id,
  );
  expect(own.map(({ Type, Action }) => `${Type} ${Action}`)).toEqual([
    "container create",
    "network connect",
    "container start",
    "container exec_create: true",
    "container exec_start: true",
    "container exec_die",
    "container kill",
    "container die",
    "network disconnect",
  ]);
  expect(own[1]?.Actor).toEqual({
    ID: network,
    Attributes: { container: id, name: "told", type: "bridge" },
  });
  await engine.ask("DELETE", `/containers/${id}`);
});

test("a container keeps its name, and is told so", async () => {
  const id = await engine.create({ Cmd: ["true"] }, "same");
  expect(await message("POST", `/containers/${id}/rename?name=same`)).toBe(
    "400 Renaming a container with the same name as its current name",
  );
  await engine.ask("DELETE", `/containers/${id}`);
});

test("an image that is made of files has the health check and the triggers that are asked for", async () => {
  const changes = ["HEALTHCHECK --interval=5s CMD true", "ONBUILD RUN make", 'CMD ["sh"]']
    .map((change) => `&changes=${encodeURIComponent(change)}`)
    .join("");
  const made = await engine.ask(
    "POST",
    `/images/create?fromSrc=-&repo=checked&tag=1${changes}`,
    tarOf("file", Buffer.from("content")),
  );
  expect([made.status, made.text]).toEqual([200, expect.stringContaining("sha256:")]);
  const { Config } = await engine.json<{ Config: object }>("GET", "/images/checked:1/json");
  expect(Config).toMatchObject({
    Healthcheck: { Test: ["CMD-SHELL", "true"], Interval: 5e9 },
  });
});

test("groups are the main process's and those of commands, whoever runs them", async () => {
  const HostConfig = { GroupAdd: ["4242", "daemon"] };
  const id = await engine.create({ Cmd: ["sh", "-c", "id -G; sleep 300"], User: "1", HostConfig });
  await engine.ask("POST", `/containers/${id}/start`);
  const run = async (User: string): Promise<string> => {
    const made = { Cmd: ["id", "-G"], AttachStdout: true, User };
    const exec = await engine.json<{ Id: string }>("POST", `/containers/${id}/exec`, made, 201);
    const { all } = await engine.hijack(`/exec/${exec.Id}/start`, "{}");
    return unframed(await all).stdout.trim();
  };
  // On this driver the groups of this host count: daemon's is 1.
  const groups = async (user: string): Promise<string[]> => (await run(user)).split(" ").toSorted();
  expect(await groups("")).toEqual(["1", "4242"]);
  expect(await groups("65534:7")).toEqual(["1", "4242", "7"]);
  const { text } = await engine.ask("GET", `/containers/${id}/logs?stdout=1`);
  expect(unframed(Buffer.from(text, "latin1")).stdout.trim().split(" ").toSorted()).toEqual([
    "1",
    "4242",
  ]);
  await engine.ask("DELETE", `/containers/${id}?force=1`);
  const odd = { Image: "alpine", HostConfig: { GroupAdd: ["1,2"] } };
  expect(await message("POST", "/containers/create", odd)).toMatch(/^400 .*GroupAdd/);
});

test("a VM that ran for its files alone keeps no volume from the next container", async () => {
  const HostConfig = { Binds: ["shared-by-turns:/by-turns"] };
  const idle = await engine.create({ Cmd: ["true"], HostConfig }, "idle");
  // One that has ended uses nothing: the volume does not become one for both.
  await engine.ask("POST", `/containers/${idle}/start`);
  expect((await engine.ask("POST", `/containers/${idle}/wait`)).status).toBe(200);
  expect((await engine.ask("HEAD", `/containers/${idle}/archive?path=/tmp`)).status).toBe(200);
  const next = await engine.create({ Cmd: ["sleep", "300"], HostConfig }, "next");
  const started = await engine.ask("POST", `/containers/${next}/start`);
  expect([started.status, started.text]).toEqual([204, ""]);
  // That one runs: nobody else may write there.
  expect(await message("POST", `/containers/${idle}/start`)).toContain("`docker restart next`");
  for (const id of [next, idle]) await engine.ask("DELETE", `/containers/${id}?force=1`);
});

test("whoever starts a container that has used its restarts up gives it all of them again", async () => {
  const RestartPolicy = { Name: "on-failure", MaximumRetryCount: 1 };
  const id = await engine.create({
    Cmd: ["sh", "-c", "echo ran; exit 1"],
    HostConfig: { RestartPolicy },
  });
  const runs = async (): Promise<number> => {
    const { text } = await engine.ask("GET", `/containers/${id}/logs?stdout=1`);
    return unframed(Buffer.from(text, "latin1")).stdout.split("\n").length - 1;
  };
  for (const count of [2, 4]) {
    expect((await engine.ask("POST", `/containers/${id}/start`)).status).toBe(204);
    await expect.poll(runs, { timeout: 60_000 }).toBe(count);
    const ended = async (): Promise<unknown> => await engine.json("GET", `/containers/${id}/json`);
    await expect
      .poll(ended, { timeout: 60_000 })
      .toMatchObject({ RestartCount: 1, State: { Status: "exited" } });
  }
  await engine.ask("DELETE", `/containers/${id}`);
});
