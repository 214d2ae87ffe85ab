import { createServer } from "node:http";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { mkdtemp, mkdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { VERSION_HEADER } from "../model/api.ts";
import { packageVersion } from "../util/package.ts";
import { layoutOf } from "../util/paths.ts";
import { startDaemon } from "./start.ts";
import { Vmsan } from "./vmsan.ts";

vi.mock(import("./start.ts"), { spy: true });

let dir: string;
let vmsan: Vmsan;
let asked: string[];
let old: Server | undefined;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "vmsan-client-"));
  vmsan = new Vmsan({ dir });
  asked = [];
  vi.mocked(startDaemon).mockClear();
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await vmsan.daemon.stop();
  old?.close();
  await rm(dir, { recursive: true });
});

/** Serve as a daemon of version 0.0.1 does. */
async function serveOld(): Promise<void> {
  const { socket, run } = layoutOf(dir);
  await mkdir(run, { recursive: true });
  old = createServer((request, response) => {
    asked.push(`${request.method} ${request.url} ${String(request.headers[VERSION_HEADER])}`);
    if (request.url === "/v1/shutdown") {
      response.writeHead(204).end();
      old?.close();
    } else if (request.url === "/v1/version") {
      response.end(JSON.stringify({ version: "0.0.1" }));
    } else {
      response.writeHead(409, { "content-type": "application/json" });
      response.end(JSON.stringify({ error: { code: "ERR_DAEMON_VERSION", message: "other" } }));
    }
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  old.listen(socket, resolve);
  await promise;
}

test("a daemon of another version is replaced, and asked again", async () => {
  await serveOld();
  expect(await vmsan.list()).toEqual([]);
  const own = packageVersion();
  expect(asked).toEqual([
    `GET /v1/vms ${own}`,
    `GET /v1/version ${own}`,
    `POST /v1/shutdown ${own}`,
  ]);
  expect(await vmsan.daemon.info()).toMatchObject({ version: own });
});

test("a daemon has nothing of its starter's environment that it does not need", async () => {
  const given = {
    GITHUB_TOKEN: "value-of-a-token",
    NODE_AUTH_TOKEN: "value-of-a-token",
    VMSAN_KEY: "value-of-a-token",
    VMSAN_LOG_FORMAT: "json",
    no_proxy: "registry.example",
  };
  for (const [name, value] of Object.entries(given)) vi.stubEnv(name, value);
  await vmsan.list();
  const daemon = await vmsan.daemon.info();
  const environment = (await readFile(`/proc/${daemon?.pid}/environ`, "utf8")).split("\0");
  expect(environment).toEqual(
    expect.arrayContaining(["VMSAN_LOG_FORMAT=json", "no_proxy=registry.example"]),
  );
  expect(environment.join("\n")).not.toContain("value-of-a-token");
});

test("a gateway is not told how this machine reaches registries", async () => {
  let sent = "";
  old = createServer((request, response) => {
    request.on("data", (text: Buffer) => (sent += text.toString()));
    request.on("end", () =>
      response.writeHead(400).end('{"error":{"code":"ERR_X","message":"x"}}'),
    );
  });
  await new Promise<void>((resolve) => old?.listen(0, "127.0.0.1", resolve));
  vi.stubEnv("https_proxy", "http://user:value-of-a-password@proxy.example");
  const { port } = old.address() as AddressInfo;
  const far = new Vmsan({ remote: { url: `http://127.0.0.1:${port}`, key: "vmsan_key" } });
  await expect(far.create({ image: "base" })).rejects.toMatchObject({ code: "ERR_X" });
  expect(sent).toContain('"image":"base"');
  expect(sent).not.toContain("value-of-a-password");
});

test("an upload is not begun before the version is known", async () => {
  await serveOld();
  const upload = Readable.from([Buffer.from("no archive")]);
  await expect(vmsan.images.load(upload)).rejects.toMatchObject({
    code: expect.stringMatching(/^ERR_IMAGE_/) as string,
  });
  expect(asked.map((line) => line.split(" ")[1])).toEqual(["/v1/version", "/v1/shutdown"]);
});

test("the daemon does nothing for a client of another version", async () => {
  await serveOld();
  await vmsan.list();
  const headers = { [VERSION_HEADER]: "0.0.1" };
  const other = { code: "ERR_DAEMON_VERSION" };
  await expect(vmsan.daemon.call("GET", "/v1/vms", { headers })).rejects.toMatchObject(other);
  await expect(
    vmsan.daemon.call("POST", "/v1/images/prune", { headers, body: { all: true } }),
  ).rejects.toMatchObject(other);
  expect(await vmsan.daemon.info()).toMatchObject({ version: packageVersion() });
});

test("who follows starts the successor of a daemon that was killed, none of one that was ended", async () => {
  const end = new AbortController();
  const told: boolean[] = [];
  const onConnection = (connected: boolean): void => void told.push(connected);
  const following = (async () => {
    for await (const { type } of vmsan.events({ signal: end.signal, onConnection }))
      // Nothing has happened that a daemon could have kept its number of.
      expect(type).toBe("missed");
  })();
  const now = async (...states: boolean[]): Promise<void> =>
    await vi.waitFor(() => expect(told).toEqual(states), { timeout: 20_000 });
  await now(true);
  const first = await vmsan.daemon.info();
  process.kill(first?.pid ?? Number.NaN, "SIGKILL");
  await now(true, false, true);
  const second = await vmsan.daemon.info();
  expect(second?.pid).not.toBe(first?.pid);
  await vmsan.daemon.stop();
  await now(true, false, true, false);
  // It asks again after 0.05 s, 0.1 s, 0.15 s … meanwhile.
  await sleep(1_000);
  expect(startDaemon).toHaveBeenCalledTimes(2);
  await vmsan.list();
  await now(true, false, true, false, true);
  end.abort();
  await following;
});
