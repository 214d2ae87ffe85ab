/**
 * The engine's socket in a container, on the fake driver: testcontainers' reaper lists and removes what testcontainers has made, and
 * nothing else; other containers get none. What speaks here through the socket is what the reaper does, by Docker's command line's API.
 */
import { mkdir, rm, symlink } from "node:fs/promises";
import { request } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { expect, test } from "vitest";
import { fakeEngine } from "../fixtures/docker-engine.ts";

const engine = fakeEngine();
const OURS = { "org.testcontainers": "true" };

/** A call through a container's socket. */
async function through(
  socketPath: string,
  method: string,
  path: string,
): Promise<{ status: number; value: unknown }> {
  return await new Promise((resolve, reject) => {
    const call = request({ socketPath, method, path, agent: false });
    call.on("error", reject);
    call.on("response", (reply) => {
      let text = "";
      reply.setEncoding("utf8").on("data", (part: string) => (text += part));
      reply.on("end", () =>
        resolve({
          status: reply.statusCode ?? 0,
          value: text.startsWith("{") || text.startsWith("[") ? JSON.parse(text) : text,
        }),
      );
    });
    call.end();
  });
}

test("the reaper removes what testcontainers has made, through a socket that does nothing else", async () => {
  const dir = join(engine.place.path, "guest");
  await mkdir(dir);
  // As a link to the socket, and in a directory of the guest that is not there yet.
  const link = join(engine.place.path, "link.sock");
  await symlink(engine.socketPath, link);
  const socket = join(dir, "run/docker.sock");
  const Binds = [`${link}:${socket}:rw`];
  const refused = await engine.ask("POST", "/containers/create", {
    Image: "alpine",
    HostConfig: { Binds },
  });
  expect([refused.status, refused.text]).toEqual([400, expect.stringContaining("it is a socket")]);

  const mine = await engine.create({ Cmd: ["sleep", "300"] }, "mine");
  const theirs = await engine.create({ Cmd: ["sleep", "300"], Labels: OURS }, "theirs");
  const project = { "com.docker.compose.project": "testcontainers-1" };
  const composed = await engine.create({ Cmd: ["true"], Labels: project }, "composed");
  const other = { "com.docker.compose.project": "shop" };
  await engine.create({ Cmd: ["true"], Labels: other }, "shop");
  await engine.json("POST", "/networks/create", { Name: "tcnet", Labels: OURS }, 201);
  await engine.json("POST", "/networks/create", { Name: "minenet" }, 201);
  await engine.json("POST", "/volumes/create", { Name: "tcvolume", Labels: OURS }, 201);
  await engine.json("POST", "/volumes/create", { Name: "minevolume" }, 201);
  const reaper = await engine.create(
    { Cmd: ["sleep", "300"], Labels: OURS, HostConfig: { Binds } },
    "reaper",
  );
  await engine.ask("POST", `/containers/${reaper}/start`);
  const inspected = await engine.json<{ Mounts: object[] }>("GET", `/containers/${reaper}/json`);
  expect(inspected.Mounts).toEqual([expect.objectContaining({ Type: "bind", Source: link })]);

  const ask = async (method: string, path: string): Promise<{ status: number; value: unknown }> =>
    await through(socket, method, path);
  const names = async (filters: object): Promise<unknown[]> => {
    const query = new URLSearchParams({ all: "1", filters: JSON.stringify(filters) });
    const { value } = await ask("GET", `/v1.44/containers/json?${query.toString()}`);
    return (value as { Names: string[] }[]).flatMap(({ Names }) => Names).toSorted();
  };
  expect(await ask("GET", "/_ping")).toEqual({ status: 200, value: "OK" });
  expect(await names({})).toEqual(["/reaper", "/theirs"]);
  expect(await names({ label: { "com.docker.compose.project=testcontainers-1": true } })).toEqual([
    "/composed",
  ]);
  expect(await names({ label: ["com.docker.compose.project=shop"] })).toEqual([]);
  expect((await ask("GET", "/networks")).value).toMatchObject([{ Name: "tcnet" }]);
  expect((await ask("GET", "/volumes")).value).toMatchObject({ Volumes: [{ Name: "tcvolume" }] });
  expect((await ask("GET", "/images/json")).value).toEqual([]);
  for (const [method, path] of [
    ["GET", `/containers/${theirs}/json`],
    ["GET", "/info"],
    ["GET", "/containers/../info"],
    ["POST", "/containers/create"],
    ["POST", "/containers/prune"],
    ["POST", `/containers/${theirs}/exec`],
    ["GET", `/containers/${theirs}/archive?path=/`],
    ["DELETE", `/containers/${mine}?force=1`],
    ["DELETE", "/containers/shop"],
    ["DELETE", "/networks/minenet"],
    ["DELETE", "/networks/bridge"],
    ["DELETE", "/volumes/minevolume"],
    ["DELETE", "/images/alpine?force=1"],
  ] as const) {
    expect([path, (await ask(method, path)).status]).toEqual([path, 403]);
  }
  const upgraded = connect(socket);
  upgraded.end(
    `POST /containers/${theirs}/attach?stream=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n`,
  );
  expect((await upgraded.setEncoding("utf8").toArray()).join("")).toMatch(/^HTTP\/1\.1 403 /);
  expect((await ask("DELETE", "/containers/%zz")).status).toBe(400);
  expect((await ask("DELETE", "/containers/nobody")).status).toBe(404);

  // A gateway that comes after this one leads the same socket to itself.
  await engine.gateway?.close();
  await engine.serve();
  for (const path of [
    `/containers/${theirs}?force=1&v=1`,
    `/containers/${composed}`,
    "/networks/tcnet",
    "/volumes/tcvolume?force=1",
  ]) {
    expect([path, (await ask("DELETE", path)).status]).toEqual([path, 204]);
  }
  await engine.ask("DELETE", `/containers/${reaper}?force=1`);
  const left = await engine.json<{ Names: string[] }[]>("GET", "/containers/json?all=1");
  expect(left.flatMap(({ Names }) => Names).toSorted()).toEqual(["/mine", "/shop"]);
  await rm(link);
});
