/** Docker's Engine API as its clients speak it, on the fake driver: commands "in a container" run on this host. */
import { execFileSync } from "node:child_process";
import { request } from "node:http";
import { mkdir, readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "vitest";
import { startGateway } from "../../src/gateway/gateway.ts";
import { fakeEngine, unframed } from "../fixtures/docker-engine.ts";
import { tarOf } from "../registry/fixture.ts";

const engine = fakeEngine();
const { place, made } = engine;
const ask: typeof engine.ask = async (...args) => await engine.ask(...args);
const json: typeof engine.json = async (...args) => await engine.json(...args);
const create: typeof engine.create = async (...args) => await engine.create(...args);
const hijack: typeof engine.hijack = async (...args) => await engine.hijack(...args);

describe("the engine", () => {
  test("is found with and without a version, and says which one it speaks", async () => {
    for (const path of ["/_ping", "/v1.41/_ping", "/v1.99/_ping"]) {
      const { status, text, headers } = await ask("GET", path);
      expect([status, text, headers["api-version"], headers["ostype"]]).toEqual([
        200,
        "OK",
        "1.47",
        "linux",
      ]);
    }
    expect((await ask("HEAD", "/_ping")).status).toBe(200);
    expect(await json("GET", "/version")).toMatchObject({
      ApiVersion: "1.47",
      MinAPIVersion: "1.24",
    });
    expect(await json("GET", "/info")).toMatchObject({ OSType: "linux" });
    expect((await ask("GET", "/nothing")).status).toBe(404);
  });

  test("answers no web page", async () => {
    const status = await new Promise((resolve) => {
      const call = request({
        socketPath: engine.socketPath,
        path: "/version",
        headers: { origin: "http://evil.example" },
      });
      call.on("response", (reply) => resolve(reply.resume().statusCode));
      call.end();
    });
    expect(status).toBe(403);
  });

  test("is nobody else's: the socket's mode", async () => {
    const { stat } = await import("node:fs/promises");
    expect((await stat(engine.socketPath)).mode & 0o777).toBe(0o600);
    // A second one would hold the same containers.
    await expect(
      startGateway({ dir: made.dir, listen: "127.0.0.1:0", driver: "fake", docker: {} }),
    ).rejects.toThrow("Another gateway");
  });

  test("refuses addresses that others reach without certificates", async () => {
    const docker = { listen: "tcp://0.0.0.0:0" };
    await expect(
      startGateway({ dir: made.dir, listen: "127.0.0.1:0", driver: "fake", docker }),
    ).rejects.toMatchObject({ code: "ERR_VALIDATION_FLAGS" });
  });
});

describe("a container's life", () => {
  test("as `docker run` does it: attached before it is started, waited for meanwhile", async () => {
    const id = await create({ Cmd: ["sh", "-c", "echo out; echo err >&2; exit 5"] });
    // No VM for one that was only made.
    expect(await made.vmsan.list()).toEqual([]);
    const attached = await hijack(`/v1.41/containers/${id}/attach?stderr=1&stdout=1&stream=1`);
    expect(await attached.head).toMatch(/^HTTP\/1\.1 101 UPGRADED/);
    const waiting = json("POST", `/v1.41/containers/${id}/wait?condition=next-exit`);
    expect((await ask("POST", `/v1.41/containers/${id}/start`)).status).toBe(204);
    expect(unframed(await attached.all)).toEqual({ stdout: "out\n", stderr: "err\n" });
    expect(await waiting).toEqual({ Error: null, StatusCode: 5 });
    expect(await json("POST", `/containers/${id}/wait`)).toEqual({ Error: null, StatusCode: 5 });
    const { State, Image } = await json<{ State: object; Image: string }>(
      "GET",
      `/containers/${id.slice(0, 12)}/json`,
    );
    expect(State).toMatchObject({ Status: "exited", ExitCode: 5, Running: false });
    expect(Image).toMatch(/^sha256:/);
    const logs = await ask("GET", `/containers/${id}/logs?stdout=1&stderr=1&tail=all`);
    expect(unframed(Buffer.from(logs.text, "latin1"))).toEqual({
      stdout: "out\n",
      stderr: "err\n",
    });
    expect((await ask("POST", `/containers/${id}/stop`)).status).toBe(304);
    expect((await ask("DELETE", `/containers/${id}?v=1`)).status).toBe(204);
    expect(await made.vmsan.list()).toEqual([]);
    expect(await readdir(join(made.dir, "gateway/docker/containers"))).toEqual([]);
  });

  test("input before the start, its end, and removal by itself", async () => {
    const id = await create({
      Cmd: ["cat"],
      OpenStdin: true,
      StdinOnce: true,
      AttachStdin: true,
      HostConfig: { AutoRemove: true },
    });
    const attached = await hijack(`/containers/${id}/attach?stderr=1&stdin=1&stdout=1&stream=1`);
    attached.socket.end("data-in\n");
    const waiting = json("POST", `/containers/${id}/wait?condition=removed`);
    await ask("POST", `/containers/${id}/start`);
    expect(unframed(await attached.all).stdout).toBe("data-in\n");
    expect(await waiting).toEqual({ Error: null, StatusCode: 0 });
    expect((await ask("GET", `/containers/${id}/json`)).status).toBe(404);
    expect(await made.vmsan.list()).toEqual([]);
  });

  test("a terminal has raw bytes, a size, and what is not asked for no upgrade", async () => {
    const id = await create({
      Cmd: ["sh", "-c", "stty size; read x; echo got $x"],
      Tty: true,
      OpenStdin: true,
    });
    const attached = await hijack(`/containers/${id}/attach?stdin=1&stdout=1&stream=1`, "", false);
    expect(await attached.head).toMatch(/^HTTP\/1\.1 200 OK/);
    expect((await ask("POST", `/containers/${id}/resize?h=30&w=100`)).status).toBe(200);
    await ask("POST", `/containers/${id}/start`);
    attached.socket.write("word\n");
    const said = (await attached.all).toString();
    expect(said).toContain("30 100\r\n");
    expect(said).toContain("got word\r\n");
    await ask("DELETE", `/containers/${id}`);
  });

  test("what cannot be started says so as clients expect it", async () => {
    const id = await create({ Cmd: ["no-such-program"] });
    const { status, text } = await ask("POST", `/containers/${id}/start`);
    expect(status).toBe(400);
    expect(text).toContain("executable file not found in $PATH");
    const { State } = await json<{ State: object }>("GET", `/containers/${id}/json`);
    expect(State).toMatchObject({ Status: "created", ExitCode: 127 });
    await ask("DELETE", `/containers/${id}`);
  });

  test("kill, stop, restart, rename, pause; names and conflicts", async () => {
    const id = await create({ Cmd: ["sleep", "300"], Labels: { "a.b": "c", x: "" } }, "web-1");
    const conflict = await ask("POST", "/containers/create?name=web-1", {
      Image: "alpine",
      Cmd: ["true"],
    });
    expect(conflict.status).toBe(409);
    expect(conflict.text).toContain(
      `The container name \\"/web-1\\" is already in use by container \\"${id}\\"`,
    );
    await ask("POST", "/containers/web-1/start");
    expect((await ask("POST", "/containers/web-1/start")).status).toBe(304);
    expect((await ask("DELETE", "/containers/web-1")).status).toBe(409);
    const list = await json<Record<string, unknown>[]>(
      "GET",
      `/containers/json?filters=${encodeURIComponent('{"label":{"a.b=c":true,"x":true}}')}`,
    );
    expect(list).toHaveLength(1);
    expect(list[0]).toMatchObject({
      Id: id,
      Names: ["/web-1"],
      State: "running",
      Labels: { "a.b": "c", x: "" },
    });
    expect(String(list[0]?.["Status"])).toMatch(/^Up /);
    const none = await json<unknown[]>(
      "GET",
      `/containers/json?filters=${encodeURIComponent('{"label":["a.b=d"]}')}`,
    );
    expect(none).toEqual([]);
    expect((await ask("POST", "/containers/web-1/pause")).status).toBe(204);
    expect((await ask("POST", "/containers/web-1/unpause")).status).toBe(204);
    expect((await ask("POST", "/containers/web-1/rename?name=web-2")).status).toBe(204);
    expect((await ask("POST", "/containers/web-2/kill?signal=WINCH")).status).toBe(204);
    expect((await ask("POST", "/containers/web-2/kill?signal=NOSUCH")).status).toBe(400);
    expect((await ask("POST", "/containers/web-2/restart?t=5")).status).toBe(204);
    expect((await ask("POST", "/containers/web-2/stop?t=5")).status).toBe(204);
    const { State } = await json<{ State: object }>("GET", "/containers/web-2/json");
    expect(State).toMatchObject({ Status: "exited", ExitCode: 143 });
    expect((await ask("DELETE", "/containers/web-2?force=1")).status).toBe(204);
    const { text } = await ask("GET", "/containers/web-2/json");
    expect(JSON.parse(text)).toEqual({ message: "No such container: web-2" });
  });

  test("a restart policy starts it again, as often as it says", async () => {
    const id = await create({
      Cmd: ["sh", "-c", "echo run; exit 3"],
      HostConfig: { RestartPolicy: { Name: "on-failure", MaximumRetryCount: 2 } },
    });
    await ask("POST", `/containers/${id}/start`);
    const follow = await ask("GET", `/containers/${id}/logs?stdout=1&follow=1`);
    expect(unframed(Buffer.from(follow.text, "latin1")).stdout).toBe("run\nrun\nrun\n");
    const { RestartCount } = await json("GET", `/containers/${id}/json`);
    expect(RestartCount).toBe(2);
    await ask("DELETE", `/containers/${id}?force=1`);
  });

  test("one that waits for its next start is among those that run", async () => {
    const HostConfig = { RestartPolicy: { Name: "always" } };
    const id = await create({ Cmd: ["false"], HostConfig });
    await ask("POST", `/containers/${id}/start`);
    const status = async (query: string): Promise<string[]> =>
      (await json<{ Id: string; State: string }[]>("GET", `/containers/json${query}`))
        .filter(({ Id }) => Id === id)
        .map(({ State }) => State);
    // The pauses between starts grow: after some of them it is seen in one.
    await expect.poll(async () => await status(""), { timeout: 60_000 }).toEqual(["restarting"]);
    const filters = encodeURIComponent(JSON.stringify({ status: ["restarting"] }));
    await expect
      .poll(async () => await status(`?filters=${filters}`), { timeout: 60_000 })
      .toEqual(["restarting"]);
    await ask("DELETE", `/containers/${id}?force=1`);
  });

  test("what a microVM cannot do is refused with words, and what it need not do is not", async () => {
    const refused: [Record<string, unknown>, string][] = [
      [{ PidMode: "host" }, "--pid host"],
      [{ NetworkMode: "host" }, "--network host"],
      [{ NetworkMode: "container:x" }, "--network container:x"],
      [{ Devices: [{ PathOnHost: "/dev/sda" }] }, "--device"],
      [{ DeviceRequests: [{ Count: -1 }] }, "--gpus"],
      [{ LogConfig: { Type: "syslog" } }, "--log-driver syslog"],
      [{ Binds: ["/etc"] }, "invalid volume specification"],
      [
        { Binds: [`${engine.socketPath}:/var/run/docker.sock`] },
        "the reaper of testcontainers gets a socket of its own",
      ],
      [{ Binds: ["/dev/null:/x"] }, "neither a directory nor a regular file"],
      [
        { Mounts: [{ Type: "bind", Source: join(place.path, "none"), Target: "/x" }] },
        "bind source path does not exist",
      ],
      [{ Binds: ["/tmp:/proc/x"] }, "kernel's own"],
      [{ RestartPolicy: { Name: "sometimes" } }, "unknown policy"],
      [{ PortBindings: { "80/tcp": [{ HostPort: "99999" }] } }, "invalid port"],
    ];
    for (const [HostConfig, words] of refused) {
      const { status, text } = await ask("POST", "/containers/create", {
        Image: "alpine",
        Cmd: ["true"],
        HostConfig,
      });
      expect([words, status]).toEqual([words, 400]);
      expect(text).toContain(words);
    }
    const missing = await ask("POST", "/containers/create", { Image: "nothing:1", Cmd: ["true"] });
    expect([missing.status, missing.text]).toEqual([
      404,
      '{"message":"No such image: nothing:1"}\n',
    ]);
    const id = await create({
      Cmd: ["true"],
      HostConfig: { Privileged: true, Init: true, Memory: 64 << 20 },
    });
    await ask("DELETE", `/containers/${id}`);
    expect(await json("GET", "/containers/json?all=1")).toEqual([]);
  });
});

describe("commands and files", () => {
  let id: string;
  beforeAll(async () => {
    id = await create({ Cmd: ["sleep", "300"], Env: ["OWN=1"] }, "task");
    await ask("POST", "/containers/task/start");
    return async () => void (await ask("DELETE", "/containers/task?force=1"));
  });

  const exec = async (body: Record<string, unknown>): Promise<string> =>
    (await json<{ Id: string }>("POST", `/containers/${id}/exec`, body, 201)).Id;

  test("the status is there when the output ends", async () => {
    const Cmd = ["sh", "-c", "echo $FROM $OWN $X; cat; echo err >&2; exit 4"];
    const one = await exec({
      AttachStdin: true,
      AttachStdout: true,
      AttachStderr: true,
      Env: ["X=2"],
      Cmd,
    });
    const { socket, all } = await hijack(`/exec/${one}/start`, '{"Detach":false,"Tty":false}');
    socket.end("typed\n");
    expect(unframed(await all)).toEqual({ stdout: "image 1 2\ntyped\n", stderr: "err\n" });
    expect(await json("GET", `/exec/${one}/json`)).toMatchObject({ Running: false, ExitCode: 4 });
    // Clients that start a command again (compose's watch does) are told so in what they read, not by the status.
    expect((await ask("POST", `/exec/${one}/start`, { Detach: true })).status).toBe(409);
    const again = await hijack(`/exec/${one}/start`, '{"Detach":false}', false);
    expect(await again.head).toContain("200 OK");
    expect(unframed(await again.all).stderr).toContain("is already running or has ended");
  });

  test("without an upgrade, with input behind the body (dockerode)", async () => {
    const one = await exec({ AttachStdin: true, AttachStdout: true, Cmd: ["cat"] });
    const { socket, all, head } = await hijack(`/exec/${one}/start`, '{"Tty":false}', false);
    expect(await head).toMatch(/^HTTP\/1\.1 200 OK/);
    socket.end("GET /_ping HTTP/1.1\r\n\r\n");
    expect(unframed(await all).stdout).toBe("GET /_ping HTTP/1.1\r\n\r\n");
  });

  test("a program that is not there: 127, and words on standard error", async () => {
    const one = await exec({ AttachStdout: true, AttachStderr: true, Cmd: ["no-such-program"] });
    const { all } = await hijack(`/exec/${one}/start`, "{}");
    expect(unframed(await all).stderr).toContain("executable file not found");
    expect(await json("GET", `/exec/${one}/json`)).toMatchObject({ ExitCode: 127 });
    expect((await ask("POST", "/exec/00/start", {})).status).toBe(404);
  });

  test("an archive down is what went up; the header says what is there", async () => {
    const dir = join(place.path, "files");
    await mkdir(dir);
    const where = encodeURIComponent(dir);
    const archive = Buffer.concat([tarOf("sub/a.txt", Buffer.from("content")), Buffer.alloc(1024)]);
    const put = await ask(
      "PUT",
      `/containers/task/archive?path=${where}&noOverwriteDirNonDir=&copyUIDGID=`,
      archive,
    );
    expect([put.status, put.text]).toEqual([200, ""]);
    expect(await readFile(join(dir, "sub/a.txt"), "utf8")).toBe("content");
    const head = await ask("HEAD", `/containers/task/archive?path=${where}`);
    const stat = JSON.parse(
      Buffer.from(String(head.headers["x-docker-container-path-stat"]), "base64").toString(),
    ) as { name: string; mode: number };
    expect([stat.name, stat.mode]).toEqual(["files", 2 ** 31 + 0o755]);
    const down = await ask("GET", `/containers/task/archive?path=${where}%2F.`);
    expect(down.text).toContain("path=./sub/a.txt\n");
    expect(down.text).not.toContain("files/");
    const missing = await ask("GET", `/containers/task/archive?path=${where}%2Fnone`);
    expect(missing.status).toBe(404);
    expect(missing.text).toContain("Could not find the file");
    expect(
      (await ask("PUT", `/containers/task/archive?path=${where}%2Fnone`, archive)).status,
    ).toBe(404);
    const bad = await ask(
      "PUT",
      `/containers/task/archive?path=${where}`,
      Buffer.from("BZh91AY&SY and no more"),
    );
    expect(bad.status).toBe(400);
    const cut = await ask(
      "PUT",
      `/containers/task/archive?path=${where}`,
      gzipSync(archive).subarray(0, 40),
    );
    expect([cut.status, cut.text]).toEqual([400, expect.stringContaining("damaged or cut off")]);
  });

  test("an archive may be compressed in every way that Docker takes, and in several parts", async () => {
    const dir = join(place.path, "compressed");
    await mkdir(dir);
    const where = encodeURIComponent(dir);
    const packed = {
      gzip: (plain: Buffer) => gzipSync(plain),
      zstd: (plain: Buffer) => zstdCompressSync(plain),
      bzip2: (plain: Buffer) => execFileSync("bzip2", ["-c"], { input: plain }),
      xz: (plain: Buffer) => execFileSync("xz", ["-c"], { input: plain }),
    };
    for (const [name, pack] of Object.entries(packed)) {
      const entry = tarOf(`sub/${name}`, Buffer.alloc(300_000, `${name}\n`));
      const half = entry.length >> 1;
      const parts = [entry.subarray(0, half), entry.subarray(half), Buffer.alloc(1024)].map(pack);
      const put = await ask("PUT", `/containers/task/archive?path=${where}`, Buffer.concat(parts));
      expect([name, put.status, put.text]).toEqual([name, 200, ""]);
      const content = await readFile(join(dir, "sub", name), "utf8");
      expect(content).toBe(Buffer.alloc(300_000, `${name}\n`).toString());
    }
  });
});

test("a gateway that is started anew finds what runs: every byte of the log once, and the exit", async () => {
  const script =
    "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; read x; echo after; exit 7";
  const id = await create({ Cmd: ["sh", "-c", script], OpenStdin: true }, "kept");
  await ask("POST", `/containers/${id}/start`);
  await engine.gateway?.close();
  await engine.serve();
  expect(await json("GET", `/containers/${id}/json`)).toMatchObject({
    State: { Status: "running" },
  });
  const attached = await hijack(`/containers/${id}/attach?stdin=1&stdout=1&stream=1`);
  attached.socket.write("go\n");
  expect(await json("POST", `/containers/${id}/wait`)).toEqual({ Error: null, StatusCode: 7 });
  const { text } = await ask("GET", `/containers/${id}/logs?stdout=1&stderr=1`);
  const lines = Array.from({ length: 20_000 }, (_, i) => `line ${i}\n`);
  expect(unframed(Buffer.from(text, "latin1")).stdout).toBe(`${lines.join("")}after\n`);
  const last = await ask("GET", `/containers/${id}/logs?stdout=1&tail=2&timestamps=1`);
  expect(unframed(Buffer.from(last.text, "latin1")).stdout).toMatch(
    /^\d{4}-\d\d-\d\dT[\d:]+\.\d{9}Z line 19999\n\d{4}-\d\d-\d\dT[\d:]+\.\d{9}Z after\n$/,
  );
  await ask("DELETE", `/containers/${id}?force=1`);
});

test("twenty at once leave nothing", async () => {
  const run = async (index: number): Promise<unknown> => {
    const id = await create({
      Cmd: ["sh", "-c", `exit ${index}`],
      HostConfig: { AutoRemove: true },
    });
    const waiting = json("POST", `/containers/${id}/wait?condition=removed`);
    await ask("POST", `/containers/${id}/start`);
    return (await waiting)["StatusCode"];
  };
  const codes = await Promise.all(Array.from({ length: 20 }, (_, index) => run(index)));
  expect(codes).toEqual(Array.from({ length: 20 }, (_, index) => index));
  expect(await json("GET", "/containers/json?all=1")).toEqual([]);
  expect(await made.vmsan.list()).toEqual([]);
  expect(await readdir(join(made.dir, "gateway/docker/logs"))).toEqual([]);
});

describe("images, volumes, networks", () => {
  test("images by name and by ID", async () => {
    const [image] = await json<{ Id: string; RepoTags: string[] }[]>("GET", "/images/json");
    expect(image?.RepoTags).toContain("alpine:latest");
    const { Id } = await json("GET", "/images/alpine/json");
    expect(Id).toBe(image?.Id);
    expect((await json("GET", `/images/${String(Id).slice(7, 19)}/json`))["Id"]).toBe(Id);
    expect((await ask("POST", "/images/alpine/tag?repo=one/two&tag=3")).status).toBe(201);
    expect(await json("GET", "/images/one/two:3/json")).toMatchObject({ Id });
    expect(await json("DELETE", "/images/one/two:3")).toEqual([{ Untagged: "one/two:3" }]);
    const missing = await ask("GET", "/images/none:3.14/json");
    expect([missing.status, missing.text]).toEqual([
      404,
      '{"message":"no such image: none:3.14: No such image: none:3.14"}\n',
    ]);
    const id = await create({ Cmd: ["true"] });
    expect((await ask("DELETE", "/images/alpine")).status).toBe(409);
    await ask("DELETE", `/containers/${id}`);
    expect((await ask("GET", "/images/search?term=x")).status).toBe(501);
  });

  test("a container starts from the image that it was made of, whoever has its name by then", async () => {
    await engine.load("moved", { Env: ["WHICH=first"] });
    const Cmd = ["sh", "-c", "test $WHICH = first"];
    const id = await create({ Image: "moved", Cmd });
    await engine.load("moved", { Env: ["WHICH=second"] });
    // Nothing but the container's document needs the first one now.
    await json("POST", "/images/prune");
    expect(await ask("POST", `/containers/${id}/start`)).toMatchObject({ status: 204, text: "" });
    expect(await json("POST", `/containers/${id}/wait`)).toEqual({ Error: null, StatusCode: 0 });
    await ask("DELETE", `/containers/${id}`);
    await json("DELETE", "/images/moved");
  });

  test("volumes are made with the container that names them", async () => {
    expect((await ask("GET", "/volumes/none")).text).toContain("get none: no such volume");
    const id = await create({ Cmd: ["true"], HostConfig: { Binds: ["data:/data:rw"] } });
    const { Volumes } = await json<{ Volumes: { Name: string }[] }>("GET", "/volumes");
    expect(Volumes.map(({ Name }) => Name)).toEqual(["data"]);
    expect((await ask("DELETE", "/volumes/data")).status).toBe(409);
    const { Mounts } = await json<{ Mounts: object[] }>("GET", `/containers/${id}/json`);
    expect(Mounts).toEqual([
      {
        Type: "volume",
        Name: "data",
        Source: "data",
        Destination: "/data",
        Driver: "local",
        Mode: "rw",
        RW: true,
        Propagation: "",
      },
    ]);
    await ask("DELETE", `/containers/${id}`);
    expect((await ask("DELETE", "/volumes/data")).status).toBe(204);
  });

  test("networks are kept, and names of theirs with the containers", async () => {
    expect((await ask("GET", "/networks/p_default")).text).toContain("network p_default not found");
    const { Id } = await json(
      "POST",
      "/networks/create",
      { Name: "p_default", Labels: { a: "b" } },
      201,
    );
    expect((await ask("POST", "/networks/create", { Name: "p_default" })).status).toBe(409);
    const id = await create({
      Cmd: ["true"],
      HostConfig: { NetworkMode: "p_default" },
      NetworkingConfig: { EndpointsConfig: { p_default: { Aliases: ["web"] } } },
    });
    const { NetworkSettings } = await json<{ NetworkSettings: { Networks: object } }>(
      "GET",
      `/containers/${id}/json`,
    );
    expect(NetworkSettings.Networks).toMatchObject({
      p_default: {
        Aliases: ["web"],
        DNSNames: expect.arrayContaining(["web", id.slice(0, 12)]) as string[],
        NetworkID: Id,
      },
    });
    await ask("DELETE", `/containers/${id}`);
    expect((await ask("DELETE", `/networks/${String(Id)}`)).status).toBe(204);
    expect((await ask("DELETE", "/networks/bridge")).status).toBe(403);
  });

  test("events have their time, and end at theirs", async () => {
    const id = await create({ Cmd: ["true"], Labels: { mark: "1" } });
    await ask("DELETE", `/containers/${id}`);
    const filters = encodeURIComponent(JSON.stringify({ label: ["mark=1"], type: ["container"] }));
    const until = Math.ceil(Date.now() / 1000);
    const { text } = await ask("GET", `/events?since=1&until=${until}&filters=${filters}`);
    const seen = text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { Action: string });
    expect(seen.map(({ Action }) => Action)).toEqual(["create", "destroy"]);
  });
});
