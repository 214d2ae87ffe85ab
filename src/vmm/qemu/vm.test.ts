import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { IsolationReport, VmSpec } from "../../model/vm.ts";
import { listenUnix } from "../../util/socket-path.ts";
import { identityOf } from "../../util/process-identity.ts";
import { processExit } from "../exit.ts";
import { qemuFiles } from "./command.ts";
import { QemuVm } from "./vm.ts";

let dir: string;
beforeAll(() => void (dir = mkdtempSync(join(tmpdir(), "vmsan-qemu-vm-"))));
afterAll(() => rmSync(dir, { recursive: true }));

/** A process in QEMU's place. */
function machine(): { vm: QemuVm; end: () => void } {
  const child = spawn("sleep", ["600"], { stdio: "ignore" });
  const identity = identityOf(child.pid ?? 0);
  if (identity === undefined) throw new Error("no process");
  const spec = { id: "vm-1", dir } as VmSpec;
  const isolation = { uid: process.geteuid?.() } as IsolationReport;
  return {
    vm: new QemuVm(spec, identity, isolation, processExit(identity, child)),
    end: () => void child.kill("SIGKILL"),
  };
}

const gone = { code: "ERR_VM_NOT_RUNNING" };

// Waiting for its monitor ends with a time limit of twenty seconds.
test("a process that ends is not waited for", { timeout: 15_000 }, async () => {
  // It does not listen, as none does that has just ended.
  const first = machine();
  const paused = first.vm.pause();
  first.end();
  await expect(paused).rejects.toMatchObject(gone);
  await expect(first.vm.resume()).rejects.toMatchObject(gone);
  // It has listened, and greets nobody any more.
  const server = createServer();
  await listenUnix(server, join(dir, qemuFiles.monitor));
  const second = machine();
  const connected = once(server, "connection");
  const again = second.vm.pause();
  await connected;
  second.end();
  await expect(again).rejects.toMatchObject(gone);
  server.close();
});
