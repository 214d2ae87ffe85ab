import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { ProcessIdentity } from "../model/vm.ts";
import { identityOf } from "../util/process-identity.ts";
import { findLeftovers } from "../vmm/leftovers.ts";
import { FileServers } from "./file-server.ts";

let dir = "";
const server = createServer();
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "vmsan-server-"));
  for (const name of ["own", "vm", "shared"]) await mkdir(join(dir, name));
  await new Promise<void>((resolve) => {
    server.listen(join(dir, "vm", "port"), resolve);
  });
});
afterAll(async () => {
  server.close();
  await rm(dir, { recursive: true, force: true });
});

test("one that has been stopped is ended, and another one takes its place; the state of others is taken up", async () => {
  const log: string[] = [];
  const servers = new FileServers(join(dir, "own"), (line) => log.push(line), 20);
  const vm = join(dir, "vm");
  await writeFile(join(dir, "known"), "of another VM");
  await servers.takeUp(vm, join(dir, "known"));
  expect(await readFile(servers.known(vm), "utf8")).toBe("of another VM");
  await servers.serve({
    id: "vm-00000001",
    dir: vm,
    served: [{ source: join(dir, "shared"), readonly: false, file: false, volume: false }],
    port: { socket: join(vm, "port") },
    token: "0".repeat(32),
    vmm: identityOf(process.pid) as ProcessIdentity,
  });
  const pid = async (): Promise<number | undefined> =>
    (await findLeftovers(vm, "shares.json"))[0]?.pid;
  const first = await pid();
  expect(first).toBeDefined();
  process.kill(first ?? 0, "SIGSTOP");
  await expect
    .poll(async () => [undefined, first].includes(await pid()), { timeout: 60_000 })
    .toBe(false);
  expect(log.join("\n")).toMatch(/has been stopped .*\n.*starting it again/);
  await servers.end("vm-00000001", vm);
  expect(await pid()).toBeUndefined();
});
