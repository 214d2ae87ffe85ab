/** The command line of another machine: VMSAN_URL and VMSAN_KEY, as people set them. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { fakeDaemon } from "../../src/daemon/testing.ts";
import type { FakeDaemon } from "../../src/daemon/testing.ts";
import { Keys } from "../../src/gateway/access/keys.ts";
import { startGateway } from "../../src/gateway/gateway.ts";
import type { ListeningGateway } from "../../src/gateway/http/server.ts";
import { layoutOf } from "../../src/util/paths.ts";

const main = join(import.meta.dirname, "../../src/cli/main.ts");
let daemon: FakeDaemon;
let gateway: ListeningGateway;
let key = "";

beforeAll(async () => {
  daemon = await fakeDaemon();
  gateway = await startGateway({ dir: daemon.dir, listen: "127.0.0.1:0", driver: "fake" });
  ({ text: key } = await new Keys(layoutOf(daemon.dir).gateway).create({}));
});

afterAll(async () => {
  await gateway?.close();
  await daemon?.close();
});

/** What `vmsan` says with such variables. */
async function vmsan(
  words: readonly string[],
  env: Record<string, string>,
): Promise<{ status: number; out: string; err: string }> {
  const { PATH = "" } = process.env;
  const all = { PATH, HOME: "/nonexistent", VMSAN_DIR: "/nonexistent/vmsan", ...env };
  return await new Promise((resolve) => {
    execFile(process.execPath, [main, ...words], { env: all }, (error, out, err) => {
      resolve({ status: typeof error?.code === "number" ? error.code : 0, out, err });
    });
  });
}

test("VMs of another machine are listed", async () => {
  const remote = { VMSAN_URL: gateway.url, VMSAN_KEY: key };
  const words = ["create", "--driver", "fake", "--name", "far", "--network-policy", "none"];
  expect(await vmsan(words, remote)).toMatchObject({ status: 0 });
  const listed = await vmsan(["list"], remote);
  expect(listed).toMatchObject({ status: 0, err: "" });
  expect(listed.out).toMatch(/^ID .*\nvm-[0-9a-f]{8} +far +running /);
  const status = await vmsan(["daemon", "status"], remote);
  expect(status.out).toMatch(/^running, version \S+\n$/);
}, 60_000);

test("a key that is missing, and a gateway that is away, are said as such", async () => {
  const none = await vmsan(["list"], { VMSAN_URL: gateway.url });
  expect(none).toMatchObject({ status: 2, out: "" });
  expect(none.err).toContain("VMSAN_URL is set, and VMSAN_KEY is not.");
  const away = await vmsan(["list"], { VMSAN_URL: "http://127.0.0.1:1", VMSAN_KEY: key });
  expect(away.status).toBe(1);
  expect(away.err).toContain("that it runs there: vmsan serve.");
}, 60_000);
