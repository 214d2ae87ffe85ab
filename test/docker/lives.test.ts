/** Lives of containers that something cuts into, on the fake driver: what a restarted engine knows, and what many of them leave. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
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

test("what builds had on the way when an engine was killed is gone when the next one serves", async () => {
  const { images } = engine.made.vmsan;
  const passing = `localhost/build-context:${"0f".repeat(16)}`;
  const named = "localhost/build-context:mine";
  await images.tag("alpine", passing);
  await images.tag("alpine", named);
  await engine.gateway?.close();
  const scratch = join(engine.made.dir, "gateway/docker/builds");
  await mkdir(join(scratch, "vmsan-build-x"));
  await writeFile(join(scratch, "vmsan-build-x/context.tar"), "half");
  await engine.serve();
  const names = (await images.list()).images.flatMap((one) => one.names);
  expect([names.includes(passing), names.includes(named)]).toEqual([false, true]);
  expect(await readdir(scratch)).toEqual([]);
  await images.remove(named);
});

test("a look at what a container prints right behind its start finds its first words, and waits for none that end", async () => {
  const look = async (script: string): Promise<string> => {
    const id = await engine.create({ Cmd: ["sh", "-c", script] });
    await engine.ask("POST", `/containers/${id}/start`);
    const { text } = await engine.ask("GET", `/containers/${id}/logs?stdout=1`);
    await engine.ask("DELETE", `/containers/${id}?force=1`);
    return unframed(Buffer.from(text, "latin1")).stdout;
  };
  expect(await look("sleep 0.3; echo first; exec sleep 300")).toBe("first\n");
  expect(await look("sleep 0.3")).toBe("");
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

/** An engine that is a process of its own, so that it can be killed. */
async function serveApart(): Promise<{ kill: () => Promise<void> }> {
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
  return {
    kill: async () => {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

const scale = Number(process.env["VMSAN_TEST_SCALE"] ?? "1");
test("an engine that is killed while containers come and go: the next one tells the truth of each", async () => {
  await engine.gateway?.close();
  const seen: Record<string, number> = {};
  for (let round = 0; round < 2 * scale; round += 1) {
    if (scale > 1) console.log(round, new Date(), seen);
    const apart = await serveApart();
    const ids = await Promise.all(
      Array.from(
        { length: 8 },
        async (_, index) =>
          await engine.create({ Cmd: ["sh", "-c", `echo ${index}; exit ${index}`] }),
      ),
    );
    // Half of them have ended once before.
    const olds = ids.filter((_, index) => round % 2 === 1 && index % 2 === 1);
    for (const id of olds) {
      await engine.ask("POST", `/containers/${id}/start`);
      await engine.json("POST", `/containers/${id}/wait`);
    }
    // The engine may be gone before it answers, at any point of a start.
    const starts = ids.map(
      async (id) =>
        (await engine.ask("POST", `/containers/${id}/start`).catch(() => undefined))?.status,
    );
    await Promise.race(starts);
    await sleep(Math.random() * 60);
    await apart.kill();
    const answered = await Promise.all(starts);
    await engine.serve();
    for (const [index, id] of ids.entries()) {
      const printed = async (): Promise<string> => {
        const { text } = await engine.ask("GET", `/containers/${id}/logs?stdout=1`);
        return unframed(Buffer.from(text, "latin1")).stdout;
      };
      const line = `${index}\n`;
      const before = olds.includes(id) ? line : "";
      const { State } = await engine.json<Inspected>("GET", `/containers/${id}/json`);
      const known = await engine
        .json("POST", `/containers/${id}/wait`)
        .then(async ({ StatusCode }) => ({ code: StatusCode, said: await printed() }));
      const ran = known.said === before + line;
      const what = `${before === "" ? "new" : "old"} ${State.Status} ${ran ? "ran" : "did not run"}`;
      seen[what] = (seen[what] ?? 0) + 1;
      // One that was answered has run; one that says it has not run has not, and has printed nothing.
      if (answered[index] === 204 || (before === "" && State.Status !== "created")) {
        expect(known).toEqual({ code: index, said: before + line });
      } else expect([before, before + line]).toContain(known.said);
      if (State.Status === "created") expect(known.said).toBe("");
      if (ran) continue;
      // And it can be started.
      const { status, text } = await engine.ask("POST", `/containers/${id}/start`);
      expect([status, text]).toEqual([204, ""]);
      expect(await engine.json("POST", `/containers/${id}/wait`)).toMatchObject({
        StatusCode: index,
      });
      expect(await printed()).toBe(before + line);
    }
    await engine.json("POST", "/containers/prune");
    await expectNothing();
    await engine.gateway?.close();
  }
  if (scale > 1) console.log(seen);
  await engine.serve();
});

test("one whose start the engine could not write down any more has run all the same", async () => {
  const path = (id: string): string =>
    join(engine.made.dir, "gateway/docker/containers", `${id}.json`);
  const read = async (id: string): Promise<Record<string, unknown>> =>
    JSON.parse(await readFile(path(id), "utf8")) as Record<string, unknown>;
  const inspect = async (id: string): Promise<Inspected & { State: { ExitCode: number } }> =>
    await engine.json("GET", `/containers/${id}/json`);
  const printed = async (id: string): Promise<string> => {
    const { text } = await engine.ask("GET", `/containers/${id}/logs?stdout=1`);
    return unframed(Buffer.from(text, "latin1")).stdout;
  };
  const go = join(engine.place.path, "go");
  const fast = await engine.create({
    Cmd: ["sh", "-c", `echo fast; until [ -e ${go} ]; do sleep 0.1; done; exit 3`],
  });
  const slow = await engine.create({ Cmd: ["sh", "-c", "echo slow; exec sleep 300"] });
  const again = await engine.create({ Cmd: ["sh", "-c", "echo again; exec sleep 300"] });
  const wrong = await engine.create({ Cmd: ["no-such-program"] });
  await engine.ask("POST", `/containers/${again}/start`);
  await engine.ask("POST", `/containers/${again}/stop?t=0`);
  // What stood in their documents before they were started.
  const before = new Map(
    await Promise.all(
      [fast, slow, again].map(async (id) => [id, (await read(id))["state"]] as const),
    ),
  );
  for (const id of before.keys()) {
    expect(await engine.ask("POST", `/containers/${id}/start`)).toMatchObject({ status: 204 });
  }
  expect(await engine.ask("POST", `/containers/${wrong}/start`)).toMatchObject({ status: 400 });
  await engine.gateway?.close();
  for (const [id, state] of before) {
    const { run: _run, ...record } = await read(id);
    await writeFile(path(id), JSON.stringify({ ...record, state }));
  }
  await writeFile(go, "");
  await engine.serve();
  expect(await engine.json("POST", `/containers/${fast}/wait`)).toMatchObject({ StatusCode: 3 });
  expect((await inspect(fast)).State).toMatchObject({ Status: "exited", ExitCode: 3 });
  expect((await inspect(slow)).State).toMatchObject({ Status: "running" });
  expect((await inspect(again)).State).toMatchObject({ Status: "running" });
  expect((await inspect(wrong)).State).toMatchObject({ Status: "created", ExitCode: 127 });
  expect([await printed(fast), await printed(slow), await printed(again)]).toEqual([
    "fast\n",
    "slow\n",
    "again\nagain\n",
  ]);
  for (const id of [fast, slow, again, wrong]) {
    await engine.ask("DELETE", `/containers/${id}?force=1`);
  }
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
