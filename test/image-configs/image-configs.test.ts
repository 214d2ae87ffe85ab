/**
 * Odd image configurations and what Docker makes of them (image-configs/cases.json), on the real
 * agent in the image's tree as its root directory. A guest's kernel is not needed for that;
 * test/e2e/images/image-configs.test.ts shows a few in one.
 */
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { chmodSync, copyFileSync, linkSync, mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AgentChannel } from "../../src/agent/channel.ts";
import { newToken } from "../../src/agent/handshake.ts";
import { withCallersValues } from "../../src/cli/environment.ts";
import { vmPath } from "../../src/client/paths.ts";
import { Vm } from "../../src/client/vm.ts";
import type { Daemon } from "../../src/client/daemon.ts";
import { makeTar } from "../../src/layers/testing.ts";
import type { VmView } from "../../src/model/api.ts";
import { VmsanError } from "../../src/model/errors.ts";
import type { ImageConfig } from "../../src/model/image.ts";
import type { VmRecord } from "../../src/model/vm.ts";
import { parseConfig, toImageConfig } from "../../src/oci/documents/config.ts";
import { guestConfig } from "../../src/sandbox/starting/bring-up.ts";
import { agentBinary } from "../../src/util/package.ts";
import { configCases, configOf, entriesOf } from "./image.ts";
import type { ConfigCase, Outcome } from "./image.ts";

/** Linked into each tree, which is quicker than unpacking it. */
const BUSYBOX = "bin/busybox";
const isRoot = process.getuid?.() === 0;
let work = "";
beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), "vmsan-configs-"));
  copyFileSync(process.env["VMSAN_AGENT"] ?? agentBinary(), join(work, "agent"));
  copyFileSync("/bin/busybox", join(work, "busybox"));
});
afterAll(() => rmSync(work, { recursive: true, force: true }));

/** The image's tree with an agent that has it as its root directory. */
async function agentIn(given: ConfigCase): Promise<{ channel: AgentChannel; end: () => void }> {
  const root = mkdtempSync(join(work, "root-"));
  chmodSync(root, 0o755);
  const entries = [...entriesOf(given), { path: "dev/null" }].filter(
    ({ path }) => path !== BUSYBOX,
  );
  const tar = spawnSync("tar", ["xp", "--numeric-owner", "-C", root], { input: makeTar(entries) });
  if (tar.status !== 0) throw new Error(tar.stderr.toString());
  linkSync(join(work, "agent"), join(root, ".agent"));
  linkSync(join(work, "busybox"), join(root, BUSYBOX));
  const child: ChildProcess = spawn("chroot", [root, "/.agent", "serve", "--unix", "/.socket"], {
    stdio: "ignore",
  });
  const channel = new AgentChannel({
    open: async (signal) => {
      for (;;) {
        signal.throwIfAborted();
        const socket = connect(join(root, ".socket"));
        const opened = await new Promise<boolean>((resolve) => {
          socket.once("connect", () => resolve(true));
          socket.once("error", () => resolve(false));
        });
        if (opened) return socket;
        await sleep(5, undefined, { signal });
      }
    },
    token: newToken(),
    build: "test",
  });
  return {
    channel,
    end: () => {
      channel.close();
      child.kill("SIGKILL");
    },
  };
}

/** The daemon as far as a VM's commands need it. */
function daemonOf(channel: AgentChannel, id: string): Daemon {
  const inside = (path: string): string => path.slice(vmPath(id).length);
  const fake: unknown = {
    upgrade: (path: string, signal: AbortSignal) => channel.open(inside(path), signal),
  };
  return fake as Daemon;
}

/** A failure as the exit status that `docker run` gives for it. */
function statusOf(error: unknown): number {
  if (!(error instanceof VmsanError)) throw error;
  if (error.code === "ERR_AGENT_NOT_FOUND") return 127;
  if (error.code === "ERR_AGENT_NOT_EXECUTABLE") return 126;
  if (/^ERR_(AGENT_(USER|WORKDIR)|VALIDATION_FLAGS)$/.test(error.code)) return 125;
  throw error;
}

/** Run the case's command. */
async function outcomeOf(given: ConfigCase): Promise<Outcome> {
  const { user, workdir, env = [], entrypoint, args = [], caller = {} } = given.options ?? {};
  const document = {
    architecture: "amd64",
    os: "linux",
    config: configOf(given),
    rootfs: { type: "layers", diff_ids: [] },
  };
  const config: ImageConfig = toImageConfig(
    parseConfig(Buffer.from(JSON.stringify(document)), 0, given.name),
  );
  const defaults = {
    env: withCallersValues(env, caller),
    ...(user === undefined ? {} : { user }),
    ...(workdir === undefined ? {} : { workdir }),
  };
  const record = { id: "vm-00000000", image: { config }, defaults } as unknown as VmRecord;
  const { channel, end } = await agentIn(given);
  try {
    await channel.configure(guestConfig(record));
    const vm = new Vm(daemonOf(channel, record.id), record as unknown as VmView);
    const { exitCode, stdout } = await vm.exec(vm.commandLine(args, entrypoint));
    return { status: exitCode, stdout: stdout.toString() };
  } catch (error) {
    return { status: statusOf(error), stdout: "" };
  } finally {
    end();
  }
}

describe.skipIf(!isRoot)("as in Docker (needs root, for chroot and owners)", () => {
  const cases = configCases();
  test.each(cases.map((given) => [given.name, given] as const))("%s", async (_name, given) => {
    const { because: _because, ...expected } = { because: "", ...(given.vmsan ?? given.docker) };
    expect(await outcomeOf(given)).toEqual(expected);
  });

  test("a directory that an exec asks for is not made", async () => {
    const { channel, end } = await agentIn({ name: "exec", config: {} });
    try {
      const view = { id: "vm-00000000", defaults: { env: [] } } as unknown as VmView;
      const vm = new Vm(daemonOf(channel, view.id), view);
      await expect(vm.exec(["/bin/pwd"], { workdir: "/not/there" })).rejects.toMatchObject({
        code: "ERR_AGENT_WORKDIR",
      });
    } finally {
      end();
    }
  });
});

test("every difference from Docker has a reason", () => {
  for (const { name, docker, vmsan } of configCases()) {
    expect(docker, name).toBeDefined();
    if (vmsan === undefined) continue;
    expect(vmsan.because.length, name).toBeGreaterThan(20);
    expect(vmsan, name).not.toMatchObject({ ...docker });
  }
});
