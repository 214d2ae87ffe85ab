/** Lives of containers that something cuts into, on the fake driver: what a restarted engine knows, and what many of them leave. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, readdir, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { fakeEngine, unframed } from "../fixtures/docker-engine.ts";

// A machine that has other work too.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 240_000 });

const engine = fakeEngine();
const SECOND = 1e9;

interface Inspected {
  State: { Status: string; Health?: { Status: string; Log: { Output: string }[] } };
}

/** Nothing of any container is there any more. */
async function expectNothing(): Promise<void> {
  expect(await engine.json("GET", "/containers/json?all=1")).toEqual([]);
  expect(await engine.made.vmsan.list()).toEqual([]);
  const directory = join(engine.made.dir, "gateway/docker");
  expect(await readdir(join(directory, "logs"))).toEqual([]);
  expect(await readdir(join(directory, "containers"))).toEqual([]);
}

/** `docker run --rm`, its output and its status. */
async function runOnce(script: string): Promise<{ said: string; code: unknown }> {
  const id = await engine.create({
    Cmd: ["sh", "-c", script],
    HostConfig: { AutoRemove: true },
  });
  const { all } = await engine.hijack(`/containers/${id}/attach?stdout=1&stderr=1&stream=1`);
  const waiting = engine.json("POST", `/containers/${id}/wait?condition=removed`);
  await engine.ask("POST", `/containers/${id}/start`);
  const { StatusCode: code } = await waiting;
  return { said: unframed(await all).stdout, code };
}

// More of them take a quiet machine half a minute.
const many = Number(process.env["VMSAN_TEST_SCALE"] ?? "1") > 1 ? 200 : 40;
test(`${many} one after the other, four at a time, leave nothing`, async () => {
  const left = Array.from({ length: many }, (_, index) => index);
  const worker = async (): Promise<void> => {
    for (let index = left.pop(); index !== undefined; index = left.pop()) {
      expect(await runOnce(`echo ${index}; exit ${index % 7}`)).toEqual({
        said: `${index}\n`,
        code: index % 7,
      });
    }
  };
  await Promise.all([worker(), worker(), worker(), worker()]);
  await expectNothing();
});

test("health is what it was when the engine starts anew, until the next check", async () => {
  const id = await engine.create({
    Cmd: ["sleep", "300"],
    Healthcheck: { Test: ["CMD-SHELL", "echo checked"], Interval: SECOND / 20 },
  });
  const health = async (): Promise<Inspected["State"]["Health"]> =>
    (await engine.json<Inspected>("GET", `/containers/${id}/json`)).State.Health;
  await engine.ask("POST", `/containers/${id}/start`);
  await expect.poll(async () => (await health())?.Status, { timeout: 120_000 }).toBe("healthy");
  // The next check of the second engine is a day away: what it says is what the first one knew.
  await engine.gateway?.close();
  const path = join(engine.made.dir, "gateway/docker/containers", `${id}.json`);
  const record = JSON.parse(await readFile(path, "utf8")) as {
    config: { Healthcheck: { Interval: number } };
  };
  record.config.Healthcheck.Interval = 86_400 * SECOND;
  await writeFile(path, JSON.stringify(record));
  await engine.serve();
  const found = await health();
  expect([found?.Status, found?.Log[0]?.Output]).toEqual(["healthy", "checked\n"]);
  // Started again it begins again.
  await engine.ask("POST", `/containers/${id}/restart?t=0`);
  expect((await health())?.Status).toBe("starting");
  await engine.ask("DELETE", `/containers/${id}?force=1`);
});

test("an upgrade that is refused does not linger, though its client goes on", async () => {
  const socket = connect({ path: engine.socketPath, allowHalfOpen: true });
  let said = "";
  socket.on("data", (part: Buffer) => (said += part.toString()));
  socket.write(
    "POST /containers/none/attach?stream=1 HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
  );
  await once(socket, "end");
  expect(said).toMatch(/^HTTP\/1\.1 404 .*No such container: none/s);
  // It never ends its half, and sends what nobody reads: the engine closes the connection.
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.on("error", () => undefined);
  const typing = setInterval(() => socket.write("more"), 100);
  await closed;
  clearInterval(typing);
});

test("an engine that is killed while containers come and go: the next one tells the truth of each", async () => {
  await engine.gateway?.close();
  const words = ["serve", "--docker", "--driver", "fake", "--listen", "127.0.0.1:0", "--json"];
  const child = spawn(join(import.meta.dirname, "../../bin/vmsan"), words, {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, VMSAN_DIR: engine.made.dir },
  });
  const ended = once(child, "exit");
  await Promise.race([
    once(child.stdout, "data"),
    ended.then(() => Promise.reject(new Error("vmsan serve has ended"))),
  ]);
  const ids = await Promise.all(
    Array.from(
      { length: 8 },
      async (_, index) =>
        await engine.create({ Cmd: ["sh", "-c", `echo ${index}; exit ${index}`] }),
    ),
  );
  // The engine may be gone before it answers, at any point of a start.
  const starts = ids.map(
    async (id) => await engine.ask("POST", `/containers/${id}/start`).catch(() => undefined),
  );
  await Promise.race(starts);
  child.kill("SIGKILL");
  await ended;
  await Promise.all(starts);
  await engine.serve();
  for (const [index, id] of ids.entries()) {
    const inspect = async (): Promise<Inspected> =>
      await engine.json<Inspected>("GET", `/containers/${id}/json`);
    // One that had not come so far can be started again; what it may have printed before stands in its log, as with any start.
    const again = (await inspect()).State.Status === "created";
    if (again) {
      const { status, text } = await engine.ask("POST", `/containers/${id}/start`);
      expect([status, text]).toEqual([204, ""]);
    }
    expect(await engine.json("POST", `/containers/${id}/wait`)).toMatchObject({
      StatusCode: index,
    });
    const { text } = await engine.ask("GET", `/containers/${id}/logs?stdout=1`);
    const line = `${index}\n`;
    expect([line, ...(again ? [line + line] : [])]).toContain(
      unframed(Buffer.from(text, "latin1")).stdout,
    );
  }
  await engine.json("POST", "/containers/prune");
  await expectNothing();
});

test("one that is restarted has not ended, for whoever hears of it and asks", async () => {
  const id = await engine.create({ Cmd: ["sleep", "300"] });
  await engine.ask("POST", `/containers/${id}/start`);
  const filters = encodeURIComponent(JSON.stringify({ container: [id], event: ["die"] }));
  const until = Math.ceil(Date.now() / 1000) + 600;
  const died = new Promise<void>((resolve, reject) => {
    const call = request({
      socketPath: engine.socketPath,
      path: `/events?until=${until}&filters=${filters}`,
    });
    call.on("error", reject).on("response", (reply) => {
      reply.once("data", () => {
        call.destroy();
        resolve();
      });
    });
    call.end();
  });
  await expect.poll(async () => (await engine.json("GET", "/info"))["NEventsListener"]).toBe(1);
  const restarted = engine.ask("POST", `/containers/${id}/restart?signal=INT`);
  await died;
  const { State } = await engine.json<{ State: object }>("GET", `/containers/${id}/json`);
  expect(State).toMatchObject({ Running: true });
  expect((await restarted).status).toBe(204);
  const after = await engine.json<{ State: object }>("GET", `/containers/${id}/json`);
  expect(after.State).toMatchObject({ Status: "running", Restarting: false });
  await engine.ask("DELETE", `/containers/${id}?force=1`);
});

test("one that removes itself does so at its end, and not when it is restarted", async () => {
  const id = await engine.create({ Cmd: ["sleep", "300"], HostConfig: { AutoRemove: true } });
  await engine.ask("POST", `/containers/${id}/start`);
  expect(await engine.ask("POST", `/containers/${id}/restart?t=0`)).toMatchObject({ status: 204 });
  const { State } = await engine.json<{ State: object }>("GET", `/containers/${id}/json`);
  expect(State).toMatchObject({ Status: "running" });
  await engine.ask("POST", `/containers/${id}/kill`);
  await expect
    .poll(async () => (await engine.ask("GET", `/containers/${id}/json`)).status)
    .toBe(404);
});
