import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";

test("a gateway that cannot begin ends", { timeout: 60_000 }, async () => {
  const dir = mkdtempSync(join(tmpdir(), "vmsan-gateway-"));
  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const { port } = taken.address() as AddressInfo;
  const vmsan = join(import.meta.dirname, "../../bin/vmsan");
  const child = spawn(vmsan, ["serve", "--listen", `127.0.0.1:${port}`], {
    env: { ...process.env, VMSAN_DIR: dir },
    stdio: "ignore",
  });
  onTestFinished(() => {
    child.kill("SIGKILL");
    taken.close();
    rmSync(dir, { recursive: true });
  });
  expect(await once(child, "exit")).toEqual([1, null]);
});
