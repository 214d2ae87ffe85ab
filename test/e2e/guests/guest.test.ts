/**
 * Work inside a real guest, through the daemon: the exec suite, lack of memory, forced
 * disconnects, and daemons that are killed in the middle.
 * VMSAN_TEST_SCALE (default 1) multiplies sizes and cuts; with 50 the largest output is 1 GB.
 */
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { listStreams } from "../../../src/agent/commands.ts";
import { download, upload } from "../../../src/agent/copy.ts";
import { startStream } from "../../../src/agent/streams.ts";
import { Cutter } from "../../../src/agent/testing/cutter.ts";
import { describeTree } from "../../../src/agent/testing/trees.ts";
import type { GuestTransport } from "../../../src/agent/transport.ts";
import { Vmsan } from "../../../src/client/vmsan.ts";
import type { Vm } from "../../../src/client/vm.ts";
import { execSuite } from "../../exec-cases/suite.ts";
import { freshDir, removeDir } from "../support.ts";

const scale = Number(process.env["VMSAN_TEST_SCALE"] ?? "1");
const CUTS = Math.ceil(15 * scale);

let dir = "";
let vmsan: Vmsan;
let vm: Vm;
let work = "";
beforeAll(async () => {
  dir = await freshDir(["kernels", "runtimes", "initramfs", "probes", "rootfs", "images"]);
  work = mkdtempSync(join(tmpdir(), "vmsan-guest-"));
  vmsan = new Vmsan({ dir });
  vm = await vmsan.create({ memory: 256, name: "guest" });
});
afterAll(async () => {
  await removeDir(dir);
  rmSync(work, { recursive: true });
});

execSuite(
  "qemu",
  () =>
    Promise.resolve({
      start: (spec, options) => startStream(vm.transport, spec, options),
      close: () => Promise.resolve(),
    }),
  {
    big: Math.min(1_000_000_000, 20_000_000 * scale),
    ...(scale >= 10 ? {} : { statusStep: 5 }),
    timeoutMs: 200_000,
  },
);

test("a command that the guest kills for lack of memory says so", async () => {
  const exit = await startStream(vm.transport, { kind: "exec", argv: ["tail", "/dev/zero"] }).exit;
  expect(exit).toMatchObject({ exitCode: 137, signal: "SIGKILL", oomKilled: true });
  // The agent itself is spared.
  expect((await vm.exec(["echo", "alive"])).stdout.toString()).toBe("alive\n");
});

interface Stats {
  goroutines: number;
  fds: number;
  streams: number;
}

/** Descriptors of the running daemon, and the agent's own counts. */
async function counts(): Promise<{ daemon: number; agent: Stats; pid: number }> {
  const pid = (await vmsan.daemon.info())?.pid ?? 0;
  return {
    pid,
    daemon: readdirSync(`/proc/${pid}/fd`).length,
    agent: await vm.transport.request<Stats>("GET", "/v1/stats"),
  };
}

/** A tree of files of all sizes. */
function makeFiles(name: string): string {
  const top = join(work, name);
  mkdirSync(join(top, "sub/empty"), { recursive: true });
  for (let i = 0; i < 20; i += 1) writeFileSync(join(top, "sub", `f${i}`), randomBytes(i * 997));
  writeFileSync(join(top, "big"), randomBytes(1_000_000));
  symlinkSync("sub/f1", join(top, "link"));
  return top;
}

/** Without times, which the host's files hold less finely than the guest's. */
function contents(path: string): unknown[] {
  return describeTree(Buffer.from(path)).map((line) =>
    (JSON.parse(line) as unknown[]).filter((_, i) => i !== 3),
  );
}

/** Echo of input with noise on the other output, checked to the byte. */
async function echoExactly(transport: GuestTransport, size: number): Promise<void> {
  const input = randomBytes(size);
  const out = createHash("sha256");
  let errBytes = 0;
  const stream = startStream(
    transport,
    {
      kind: "exec",
      argv: ["bash", "-c", "head -c 300000 /dev/zero >&2; cat; exit 7"],
      stdin: true,
    },
    {
      onStdout: (bytes) => void out.update(bytes),
      onStderr: (bytes) => void (errBytes += bytes.length),
    },
  );
  stream.stdin.end(input);
  const { exitCode } = await stream.exit;
  expect([exitCode, out.digest("hex"), errBytes]).toEqual([
    7,
    createHash("sha256").update(input).digest("hex"),
    300_000,
  ]);
}

describe("connections between client and daemon that break", () => {
  let before: Awaited<ReturnType<typeof counts>>;
  beforeAll(async () => {
    before = await counts();
  });

  /** The VM's transport with a cutter in front of each stream. */
  const cut = (cutter: Cutter): GuestTransport => ({
    open: async (path, signal) => cutter.wrap(await vm.transport.open(path, signal)),
    request: (method, path, options) => vm.transport.request(method, path, options),
  });

  test(`exec: ${CUTS} cuts cost nobody a byte`, async () => {
    const cutter = new Cutter(CUTS, 60_000, 1);
    while (cutter.cuts < CUTS) await echoExactly(cut(cutter), 500_000);
  });

  test(`upload and download: ${CUTS} cuts each`, async () => {
    const source = makeFiles("tree");
    const up = new Cutter(CUTS, 60_000, 2);
    const down = new Cutter(CUTS, 60_000, 3);
    for (let round = 0; up.cuts < CUTS || down.cuts < CUTS; round += 1) {
      await upload(cut(up), [source], `/tmp/tree-${round}`);
      const back = join(work, `back-${round}`);
      await download(cut(down), `/tmp/tree-${round}`, back);
      expect(contents(back)).toEqual(contents(source));
      rmSync(back, { recursive: true });
      await vm.exec(["rm", "-r", `/tmp/tree-${round}`], { user: "root" });
    }
  });

  test("nothing is left of them in the daemon or in the agent", async () => {
    await expect
      .poll(async () => (await listStreams(vm.transport)).filter(({ running }) => running), {
        timeout: 20_000,
      })
      .toEqual([]);
    await expect
      .poll(async () => (await counts()).daemon, { timeout: 20_000 })
      .toBeLessThanOrEqual(before.daemon);
    await expect
      .poll(async () => (await counts()).agent.goroutines, { timeout: 20_000 })
      .toBeLessThanOrEqual(before.agent.goroutines + 3);
    expect((await counts()).agent.fds).toBeLessThanOrEqual(before.agent.fds + 1);
  });
});

describe("a daemon that is killed in the middle", () => {
  /** Kill the daemon again and again until the work is done; each kill waits for a new one. */
  const under = async (kills: number, body: () => Promise<void>): Promise<void> => {
    const state = { done: false };
    const working = body().finally(() => (state.done = true));
    for (let i = 0; i < kills && !state.done; i += 1) {
      const pid = (await vmsan.daemon.info())?.pid;
      if (pid !== undefined) process.kill(pid, "SIGKILL");
      await expect
        .poll(async () => state.done || (await vmsan.daemon.info()) !== undefined, {
          timeout: 60_000,
        })
        .toBe(true);
    }
    await working;
  };

  test("exec goes on at the byte", async () => {
    await under(3, () => echoExactly(vm.transport, 8_000_000));
  });

  test("so do upload and download", async () => {
    const source = join(work, "large");
    writeFileSync(source, randomBytes(8_000_000));
    await under(2, () => upload(vm.transport, [source], "/tmp/large"));
    await under(2, () => download(vm.transport, "/tmp/large", join(work, "large-back")));
    expect(contents(join(work, "large-back"))).toEqual(contents(source));
    expect(readdirSync(work).filter((name) => name.startsWith("."))).toEqual([]);
  });

  test("a detached command does not even notice", async () => {
    const stream = vm.spawn(["sh", "-c", "sleep 2; echo end"], { detach: true, stdin: false });
    await stream.started;
    stream.detach();
    const pid = (await vmsan.daemon.info())?.pid ?? 0;
    process.kill(pid, "SIGKILL");
    let text = "";
    const again = vm.attach(stream.id, { onStdout: (bytes) => void (text += bytes.toString()) });
    expect((await again.exit).exitCode).toBe(0);
    expect(text).toBe("end\n");
  });
});
