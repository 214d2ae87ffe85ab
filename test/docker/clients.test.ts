/** More of Docker's Engine API on the fake driver: health checks of images, and what clients ask for less often. */
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { runOk } from "../../src/util/run.ts";
import { fakeEngine, unframed } from "../fixtures/docker-engine.ts";
import type { Hijacked } from "../fixtures/docker-engine.ts";

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

test("attach over a WebSocket: both outputs as they come, and what is typed", async () => {
  const id = await engine.create({
    Cmd: ["sh", "-c", "read a; echo got $a; echo err >&2"],
    OpenStdin: true,
  });
  const path = `/v1.47/containers/${id}/attach/ws?stream=1`;
  const socket = new WebSocket(`ws+unix://${engine.socketPath}:${path}`);
  let said = "";
  socket.on("message", (bytes: Buffer) => (said += bytes.toString()));
  await once(socket, "open");
  await engine.ask("POST", `/containers/${id}/start`);
  socket.send("word\n");
  await once(socket, "close");
  expect(said.trimEnd().split("\n").toSorted()).toEqual(["err", "got word"]);
  expect((await engine.ask("GET", path)).status).toBe(400);
  await engine.ask("DELETE", `/containers/${id}`);
});

test("top lists processes without the image's ps, with the columns that are asked for", async () => {
  const id = await engine.create({ Cmd: ["sleep", "12345"] });
  await engine.ask("POST", `/containers/${id}/start`);
  const top = async (args = ""): Promise<{ Titles: string[]; Processes: string[][] }> =>
    await engine.json("GET", `/containers/${id}/top?ps_args=${encodeURIComponent(args)}`);
  const full = await top();
  expect(full.Titles).toEqual(["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
  expect(full.Processes.map((row) => row.at(-1))).toContain("sleep 12345");
  expect((await top("aux")).Titles[0]).toBe("USER");
  const { Titles, Processes } = await top("-eo pid,args");
  expect(Titles).toEqual(["PID", "COMMAND"]);
  expect(Processes.find(([, words]) => words === "sleep 12345")?.[0]).toMatch(/^\d+$/);
  expect((await engine.ask("GET", `/containers/${id}/top?ps_args=--forest`)).status).toBe(400);
  await engine.ask("DELETE", `/containers/${id}?force=1`);
});

describe("images in and out", () => {
  test("a file system that is imported is an image, with the changes that are asked for", async () => {
    const dir = join(engine.place.path, "tree");
    await runOk("mkdir", ["-p", dir], "ERR_TEST_TOOL");
    await writeFile(join(dir, "hello"), "hello");
    const archive = join(engine.place.path, "tree.tar.gz");
    await runOk("tar", ["-C", dir, "-czf", archive, "."], "ERR_TEST_TOOL");
    const stdout = await readFile(archive);
    const query = (words: Record<string, string>): string => new URLSearchParams(words).toString();
    const words = { fromSrc: "-", repo: "imported/tree", tag: "1", changes: 'CMD ["/hello"]' };
    const { status, text } = await engine.ask("POST", `/images/create?${query(words)}`, stdout);
    expect([status, text]).toEqual([
      200,
      expect.stringMatching(/^\{"status":"sha256:[0-9a-f]{64}"\}/),
    ]);
    const image = await engine.json<{ Config: { Cmd: string[] }; RepoTags: string[] }>(
      "GET",
      "/images/imported/tree:1/json",
    );
    expect([image.Config.Cmd, image.RepoTags]).toEqual([["/hello"], ["imported/tree:1"]]);
    for (const [bad, body, why] of [
      [{ ...words, fromSrc: "http://x/y" }, stdout, "from an address"],
      [{ ...words, changes: "RUN true" }, stdout, "none of the instructions"],
      [words, Buffer.from("no archive"), "the file system"],
    ] as const) {
      const answer = await engine.ask("POST", `/images/create?${query(bad)}`, body);
      expect([answer.status >= 400, answer.text]).toEqual([true, expect.stringContaining(why)]);
    }
  });

  test("several images in one archive come back under their names", async () => {
    await engine.load("second", { Cmd: ["second"] });
    const archive = await engine.ask("GET", "/images/get?names=alpine&names=second:latest");
    const path = join(engine.place.path, "both.tar");
    await writeFile(path, Buffer.from(archive.text, "latin1"));
    const stdout = await runOk("tar", ["-xOf", path, "manifest.json"], "ERR_TEST_TOOL");
    const entries = JSON.parse(stdout) as { RepoTags: string[]; Layers: string[] }[];
    expect(entries.map(({ RepoTags }) => RepoTags)).toEqual([
      ["docker.io/library/alpine:latest"],
      ["docker.io/library/second:latest"],
    ]);
    // What both have is there once.
    const list = await runOk("tar", ["-tf", path], "ERR_TEST_TOOL");
    expect(list.match(/^[0-9a-f]{64}\.tar$/gm)).toHaveLength(1);
    await engine.ask("DELETE", "/images/second");
    const { text } = await engine.ask("POST", "/images/load", Buffer.from(archive.text, "latin1"));
    expect(text).toContain("Loaded image: alpine:latest");
    expect(text).toContain("Loaded image: second:latest");
  });
});

describe("what clients send that Docker's own command line does not", () => {
  test("a terminal's output has headers where the request that starts the command names no terminal", async () => {
    const id = await engine.create({ Cmd: ["sleep", "300"] });
    await engine.ask("POST", `/containers/${id}/start`);
    const said = async (start: object): Promise<Buffer> => {
      const command = { Cmd: ["printf", "word"], AttachStdout: true, Tty: true };
      const exec = await engine.json<{ Id: string }>(
        "POST",
        `/containers/${id}/exec`,
        command,
        201,
      );
      const { all } = await engine.hijack(`/exec/${exec.Id}/start`, JSON.stringify(start));
      return await all;
    };
    expect(unframed(await said({}))).toEqual({ stdout: "word", stderr: "" });
    expect((await said({ Tty: true })).toString()).toBe("word");
    await engine.ask("DELETE", `/containers/${id}?force=1`);
  });

  test("keys in other letters, as Go takes them", async () => {
    const id = await engine.create({
      cmd: ["sleep", "300"],
      hostConfig: { memory: 200 << 20, portBindings: { "80/tcp": [{ hostport: "0" }] } },
    });
    const { Config, HostConfig } = await engine.json<{
      Config: { Cmd: string[] };
      HostConfig: { Memory: number; PortBindings: object };
    }>("GET", `/containers/${id}/json`);
    expect([Config.Cmd, HostConfig.Memory, HostConfig.PortBindings]).toEqual([
      ["sleep", "300"],
      200 << 20,
      { "80/tcp": [{ HostPort: "0" }] },
    ]);
    await engine.ask("DELETE", `/containers/${id}`);
  });

  test("an update that is refused changes nothing", async () => {
    const id = await engine.create({ Cmd: ["sleep", "300"] });
    await engine.ask("POST", `/containers/${id}/start`);
    const body = { RestartPolicy: { Name: "always" }, Memory: 256 << 20 };
    expect((await engine.ask("POST", `/containers/${id}/update`, body)).status).toBe(409);
    const { HostConfig } = await engine.json<{ HostConfig: { RestartPolicy: { Name: string } } }>(
      "GET",
      `/containers/${id}/json`,
    );
    expect(HostConfig.RestartPolicy.Name).not.toBe("always");
    await engine.ask("DELETE", `/containers/${id}?force=1`);
  });

  test("an update's fields that do nothing are shown and warned of", async () => {
    const id = await engine.create({ Env: ["FROM", "OWN=1"] });
    const { Warnings } = await engine.json<{ Warnings: string[] }>(
      "POST",
      `/containers/${id}/update`,
      { CpuShares: 3, CpuQuota: 150_000, PidsLimit: 0 },
    );
    expect(Warnings).toEqual([expect.stringContaining("--cpu-shares")]);
    const { Config, HostConfig } = await engine.json<{
      Config: { Env: string[] };
      HostConfig: Record<string, unknown>;
    }>("GET", `/containers/${id}/json`);
    expect(HostConfig).toMatchObject({ CpuShares: 3, CpuQuota: 150_000 });
    // A variable without a value takes the image's away, and stands there.
    expect(Config.Env.toSorted()).toEqual(["FROM", "OWN=1"]);
    await engine.ask("DELETE", `/containers/${id}`);
  });
});

describe("what is removed", () => {
  const filters = (wishes: Record<string, string[]>): string =>
    `filters=${encodeURIComponent(JSON.stringify(wishes))}`;

  test("is as old as was said, whatever it is", async () => {
    const id = await engine.create({ Cmd: ["true"] });
    await engine.json("POST", "/networks/create", { Name: "young" }, 201);
    const prune = async (what: string, until: string): Promise<Record<string, unknown>> =>
      await engine.json(
        "POST",
        `/${what}/prune?${filters({ until: [until], dangling: ["false"] })}`,
      );
    const plain = async (what: string, until: string): Promise<Record<string, unknown>> =>
      await engine.json("POST", `/${what}/prune?${filters({ until: [until] })}`);
    const hourAgo = new Date(Date.now() - 3_600_000).toISOString();
    for (const until of ["24h", "1h30m", hourAgo, String(Date.now() / 1000 - 60)]) {
      expect((await plain("containers", until))["ContainersDeleted"]).toEqual([]);
      expect((await plain("networks", until))["NetworksDeleted"]).toEqual([]);
    }
    await engine.load("young", { Cmd: ["young"] });
    // The image says that it was made in 1970, or does not say.
    expect((await prune("images", "1900-01-01"))["ImagesDeleted"]).toBeNull();
    for (const until of ["soon", ""]) {
      for (const what of ["containers", "networks", "images"]) {
        const { status } = await engine.ask(
          "POST",
          `/${what}/prune?${filters({ until: [until] })}`,
        );
        expect([what, until, status]).toEqual([what, until, 400]);
      }
    }
    for (const [what, wish] of [
      ["volumes", "until"],
      ["networks", "dangling"],
      ["images", "name"],
    ] as const) {
      const { status } = await engine.ask("POST", `/${what}/prune?${filters({ [wish]: ["1h"] })}`);
      expect([what, wish, status]).toEqual([what, wish, 400]);
    }
    expect((await plain("networks", "0s"))["NetworksDeleted"]).toEqual(["young"]);
    expect((await plain("containers", "0s"))["ContainersDeleted"]).toEqual([id]);
    expect(JSON.stringify(await prune("images", "0s"))).toContain("young:latest");
    await engine.load("alpine");
  });

  test("of networks: those that no VM is in, be it no container, and stopped", async () => {
    const { vmsan } = engine.made;
    await vmsan.networks.create("empty");
    await vmsan.networks.create("native");
    const vm = await vmsan.create({ driver: "fake", image: "alpine" });
    await vm.stop();
    await vmsan.networks.connect("native", vm.id);
    const prune = async (): Promise<unknown> =>
      (await engine.json("POST", "/networks/prune"))["NetworksDeleted"];
    expect(await prune()).toEqual(["empty"]);
    expect((await vm.refresh()).networks.map(({ network }) => network)).toEqual(["native"]);
    await vm.remove();
    expect(await prune()).toEqual(["native"]);
  });

  test("of volumes: those alone to which nobody has given a name", async () => {
    const { Name } = await engine.json<{ Name: string }>("POST", "/volumes/create", {}, 201);
    await engine.json("POST", "/volumes/create", { Name: "named" }, 201);
    const prune = async (query = ""): Promise<unknown> =>
      (await engine.json("POST", `/volumes/prune${query}`))["VolumesDeleted"];
    expect(await prune()).toEqual([Name]);
    const { volumes } = engine.made.vmsan;
    await volumes.create("a-projects", { labels: { "vmsan.project": "web" } });
    expect(await prune(`?${filters({ all: ["1"] })}`)).toEqual(["named"]);
    await volumes.remove("a-projects");
  });
});

test("events of containers of an image, by its name with and without a tag", async () => {
  const since = Date.now() / 1000;
  const id = await engine.create({ Image: "alpine:latest" });
  await engine.ask("DELETE", `/containers/${id}`);
  for (const [image, count] of [
    ["alpine", 2],
    ["alpine:latest", 2],
    ["alpine:3", 0],
    ["alp", 0],
  ] as const) {
    const wish = encodeURIComponent(JSON.stringify({ image: [image], type: ["container"] }));
    const until = Date.now() / 1000;
    const { text } = await engine.ask(
      "GET",
      `/events?since=${since}&until=${until}&filters=${wish}`,
    );
    expect([image, text.split("\n").length - 1]).toEqual([image, count]);
  }
});

describe("images that there are not", () => {
  const failure = async (path: string, body?: Buffer): Promise<{ status: number; text: string }> =>
    await engine.ask("POST", path, body);

  test("in a registry: not found, as for one that it shows to nobody", async () => {
    const registry = createServer((request, response) => {
      const status = request.url === "/v2/" ? 200 : request.url?.includes("/hidden/") ? 403 : 404;
      response.writeHead(status).end();
    });
    await once(registry.listen(0, "127.0.0.1"), "listening");
    const host = `127.0.0.1:${(registry.address() as AddressInfo).port}`;
    for (const [name, words] of [
      ["absent", "manifest for "],
      ["hidden", "pull access denied for "],
    ] as const) {
      const { status, text } = await failure(`/images/create?fromImage=${host}/a/${name}&tag=1`);
      expect([status, text]).toEqual([404, expect.stringContaining(`${words}${host}/a/${name}:1`)]);
    }
    registry.close();
  });

  test("in what is loaded: the answer's last line says it", async () => {
    const { status, text } = await failure("/images/load", Buffer.from("none"));
    expect(status).toBe(200);
    expect(JSON.parse(text)).toMatchObject({ error: expect.stringContaining("archive") as string });
  });
});

test.runIf(process.getuid?.() === 0)(
  "files in an archive keep their owners, also where they are to be the container's user's and it has none",
  async () => {
    const id = await engine.create({ Cmd: ["sleep", "300"] });
    await engine.ask("POST", `/containers/${id}/start`);
    const dir = join(engine.place.path, "owned");
    await runOk("mkdir", ["-p", join(dir, "target")], "ERR_TEST_TOOL");
    await writeFile(join(dir, "file"), "content");
    const archive = join(dir, "file.tar");
    const owner = ["--owner=4242", "--group=4343", "--numeric-owner"];
    await runOk("tar", ["-C", dir, ...owner, "-cf", archive, "file"], "ERR_TEST_TOOL");
    const path = encodeURIComponent(join(dir, "target"));
    for (const flag of ["", "&copyUIDGID=1"]) {
      const { status } = await engine.ask(
        "PUT",
        `/containers/${id}/archive?path=${path}${flag}`,
        await readFile(archive),
      );
      const { uid, gid } = await stat(join(dir, "target/file"));
      expect([status, uid, gid]).toEqual([200, 4242, 4343]);
      await rm(join(dir, "target/file"));
    }
    await engine.ask("DELETE", `/containers/${id}?force=1`);
  },
);

test("whoever leaves a terminal by its keys is told of, and nobody else", async () => {
  const id = await engine.create({ Cmd: ["cat"], Tty: true, OpenStdin: true });
  await engine.ask("POST", `/containers/${id}/start`);
  const since = Date.now() / 1000;
  const wish = encodeURIComponent(JSON.stringify({ event: ["detach"], container: [id] }));
  const told = async (): Promise<number> => {
    const until = Date.now() / 1000;
    const { text } = await engine.ask(
      "GET",
      `/events?since=${since}&until=${until}&filters=${wish}`,
    );
    return text.split("\n").length - 1;
  };
  const attach = async (): Promise<Hijacked> =>
    await engine.hijack(`/containers/${id}/attach?stream=1&stdin=1&stdout=1`);
  const one = await attach();
  one.socket.write("\u0010\u0011");
  await one.all;
  expect(await told()).toBe(1);
  const other = await attach();
  await other.head;
  await engine.ask("DELETE", `/containers/${id}?force=1`);
  await other.all;
  expect(await told()).toBe(1);
});
