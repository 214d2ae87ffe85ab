/** Waiting for a guest whose console log has more than its own boot. */
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { AgentChannel } from "../../agent/channel.ts";
import type { VmRecord } from "../../model/vm.ts";
import type { Driver, RunningVm } from "../../vmm/driver.ts";
import { awaitAgent } from "./await-guest.ts";
import type { LiveGuest } from "./await-guest.ts";
import { consoleLength } from "./boot-failure.ts";

const FATAL = "vmsan-agent: fatal: ERR_AGENT_BOOT_DISK: no root\n";

let dir: string;
beforeEach(() => (dir = mkdtempSync(join(tmpdir(), "vmsan-console-"))));
afterEach(() => rmSync(dir, { recursive: true }));

/** Wait for a guest that answers after some looks at its console. @param during what is said meanwhile */
async function boot(log: string, during: string): Promise<void> {
  const driver = { consolePath: () => log } as unknown as Driver;
  const guest: LiveGuest = {
    running: { exited: new Promise(() => undefined) } as unknown as RunningVm,
    channel: {
      ready: async ({ signal }: { signal: AbortSignal }) => {
        appendFileSync(log, during);
        await sleep(1500, undefined, { signal });
        return { uptimeMs: 0 };
      },
    } as unknown as AgentChannel,
    consoleFrom: await consoleLength(log),
  };
  const record = { id: "vm-0123abcd", spec: {} } as VmRecord;
  await awaitAgent(record, driver, guest, 60_000, new AbortController().signal);
}

test("what an agent said at its end counts for that boot alone, and only its console is shown", async () => {
  const log = join(dir, "console.log");
  await boot(log, "first\n");
  await expect(boot(log, FATAL)).rejects.toMatchObject({
    code: "ERR_VM_BOOT",
    details: { console: [FATAL.trim()] },
  });
  await boot(log, "third\n");
  // Cut meanwhile, as a log that has grown too long is.
  const cut = boot(log, "");
  await sleep(200);
  writeFileSync(log, FATAL);
  await expect(cut).rejects.toMatchObject({ code: "ERR_VM_BOOT" });
});
