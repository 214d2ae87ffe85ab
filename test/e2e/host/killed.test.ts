/**
 * The daemon is killed under every kind of command: it goes on, or one error says what became of it.
 * VMSAN_TEST_SCALE (default 1) multiplies the kills of the storm; 5 makes 50.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readFile, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { CreateOptions } from "../../../src/client/options.ts";
import { Vmsan } from "../../../src/client/vmsan.ts";
import { booted, disk, installation, layout, temporary } from "../../fixtures/ladder.ts";
import { serveFaulty } from "../../registry/faulty.ts";
import type { FaultyRegistry } from "../../registry/faulty.ts";
import { makeImage, noise, tarOf } from "../../registry/fixture.ts";
import { tool } from "../images.ts";
import { strayProcesses, vmsan as cli } from "../support.ts";

const scale = Number(process.env["VMSAN_TEST_SCALE"] ?? 1);
const KILLS = Math.ceil(10 * scale);
const LARGE = 24_000_000;
const image = makeImage({
  layers: [tarOf("large", noise(LARGE, 1)), tarOf("small", noise(999, 2))],
  compression: "none",
});

const work = temporary();
const here = installation("kernel");
const packed = layout(work, image);
const root = disk(here, work, packed);
const options = (): CreateOptions => ({
  rootfs: root.path,
  driver: "fake",
  networkPolicy: "none",
});
let registry: FaultyRegistry;
beforeAll(async () => {
  registry = await serveFaulty(image);
});
afterEach(() => {
  registry.fault = () => undefined;
});
afterAll(() => registry.stop());

/** Kill the daemon, if one runs. */
async function kill(): Promise<void> {
  const info = await here.vmsan.daemon.info();
  if (info !== undefined) process.kill(info.pid, "SIGKILL");
}

/** A function that kills the daemon that runs now, at the moment when it is first called. */
async function killer(): Promise<() => void> {
  await here.vmsan.list();
  const info = await here.vmsan.daemon.info();
  if (info === undefined) throw new Error("no daemon runs");
  let called = false;
  return () => {
    if (called) return;
    called = true;
    process.kill(info.pid, "SIGKILL");
  };
}

const sha256 = (data: string | Uint8Array): string =>
  createHash("sha256").update(data).digest("hex");

describe("lives of VMs", () => {
  test("create: the error names the VM, which is gone with all that was made of it", async () => {
    const kill = await killer();
    let id = "";
    const made = here.vmsan.create(options(), {
      onVm: (vm) => {
        id = vm;
        kill();
      },
    });
    const error: unknown = await made.catch((problem: unknown) => problem);
    expect(error).toMatchObject({
      code: "ERR_DAEMON_LOST",
      message: `The daemon ended before ${id} was ready`,
      details: { vmId: id, vm: "removed" },
    });
    expect(await here.vmsan.list()).toEqual([]);
    expect(await readdir(join(here.dir, "vms"))).toEqual([]);
    expect(strayProcesses(join(here.dir, "vms"))).toEqual([]);
  });

  test("create on the command line says so, and gives status 1", async () => {
    const kill = await killer();
    const outcome = await cli(
      [
        "create",
        "--verbose",
        "--driver",
        "fake",
        "--network",
        "none",
        "--from-image",
        `${registry.host}/library/app`,
      ],
      {
        dir: here.dir,
        onProcess: () => {
          registry.fault = ({ kind }) => {
            if (kind === "blob") kill();
            return { kind: "slow", bytes: 100_000, everyMs: 50 };
          };
        },
      },
    );
    expect(outcome.stderr).toMatch(
      /error: The daemon ended before .* \[ERR_DAEMON_LOST\]\n {2}why: .*\n {2}fix: /,
    );
    expect(outcome.code).toBe(1);
    expect(await here.vmsan.list()).toEqual([]);
  });

  test("start: the error says that the VM is stopped, and it can be started", async () => {
    const vm = await here.vmsan.create(options());
    // A start takes some ten milliseconds here: one that was over before the kill is tried again.
    let error: unknown;
    for (let tries = 0; error === undefined && tries < 20; tries += 1) {
      await vm.stop(0);
      const kill = await killer();
      error = await vm.start({ onProgress: () => kill() }).then(
        () => undefined,
        (problem: unknown) => problem,
      );
    }
    expect(error).toMatchObject({
      code: "ERR_DAEMON_LOST",
      fix: `Start it: vmsan start ${vm.id}`,
      details: { vmId: vm.id, vm: "stopped" },
    });
    expect(strayProcesses(join(here.dir, "vms"))).toEqual([]);
    await vm.start();
    expect((await vm.exec(["echo", "up"])).stdout.toString()).toBe("up\n");
    await vm.remove();
  });

  test("all that may be asked twice is: list, inspect, stop, policy, remove", async () => {
    const vm = await here.vmsan.create(options());
    const policy = { ...vm.view.policy };
    for (const call of [
      () => here.vmsan.list(),
      () => vm.refresh(),
      () => vm.pause(),
      () => vm.resume(),
      () => vm.stop(0),
      () => vm.setPolicy(policy),
      () => here.vmsan.images.list(),
      () => vm.remove(),
    ]) {
      await here.vmsan.list();
      await Promise.all([call(), kill()]);
    }
    expect(await here.vmsan.list()).toEqual([]);
  });

  test("a client that may start no daemon is told that none runs", async () => {
    await kill();
    const passive = new Vmsan({ dir: here.dir, start: false });
    await expect(passive.list()).rejects.toMatchObject({ code: "ERR_DAEMON_NOT_RUNNING" });
  });
});

describe("images", () => {
  const name = (): string => `${registry.host}/library/app`;
  const digest = image.manifest.digest;

  test("pull goes on where it was, killed three times", async () => {
    await here.vmsan.images.prune({ all: true });
    const sent = (): number => registry.sent.get(image.layers[0]?.digest ?? "") ?? 0;
    registry.fault = ({ kind }) =>
      kind === "blob" ? { kind: "slow", bytes: 1_000_000, everyMs: 50 } : undefined;
    const pulled = here.vmsan.images.pull(name());
    for (const enough of [4_000_000, 9_000_000, 14_000_000]) {
      while (sent() < enough) await sleep(5);
      await kill();
    }
    expect((await pulled).digest).toBe(digest);
    // What had been written was not fetched again.
    expect(sent()).toBeLessThan(LARGE + 3 * 6_000_000);
  });

  test("load of a file begins anew; of a stream it says that it must", async () => {
    const archive = join(work.path, "image.tar");
    await tool("tar", "-C", join(work.path, "layout"), "-cf", archive, ".");
    await here.vmsan.images.prune({ all: true });
    const loading = here.vmsan.images.load(archive);
    for (let kills = 0; kills < 3; kills += 1) {
      await sleep(20);
      await kill();
    }
    const loaded = await loading;
    expect(loaded.map((each) => each.digest)).toEqual([digest]);
    const input = new PassThrough();
    const cut = here.vmsan.images.load(input);
    input.write((await readFile(archive)).subarray(0, 1 << 20));
    await sleep(500);
    await kill();
    await expect(cut).rejects.toMatchObject({ code: "ERR_DAEMON_LOST" });
  });

  test("save gives the same archive, to a file and to a stream", async () => {
    await here.vmsan.images.pull(name(), { pull: "missing" });
    const [whole, file] = [join(work.path, "whole.tar"), join(work.path, "killed.tar")];
    await here.vmsan.images.save(name(), whole);
    const wanted = sha256(await readFile(whole));
    const saving = here.vmsan.images.save(name(), file);
    while (!(await readdir(work.path)).some((each) => each.startsWith(".tmp-"))) await sleep(1);
    await kill();
    await saving;
    expect(sha256(await readFile(file))).toBe(wanted);
    const hash = createHash("sha256");
    const slow = new PassThrough({ highWaterMark: 1 << 16 });
    const saved = here.vmsan.images.save(name(), slow).then(() => slow.end());
    let bytes = 0;
    for await (const chunk of slow as AsyncIterable<Buffer>) {
      hash.update(chunk);
      const before = bytes;
      bytes += chunk.length;
      for (const at of [3_000_000, 12_000_000]) if (before < at && bytes >= at) await kill();
    }
    await saved;
    expect(hash.digest("hex")).toBe(wanted);
    expect((await readdir(work.path)).filter((each) => each.startsWith(".tmp-"))).toEqual([]);
  });

  test("disk is built by the next daemon, and nothing half made stays beside it", async () => {
    await mkdir(join(work.path, "disks"));
    const output = join(work.path, "disks/killed.ext4");
    const building = here.vmsan.images.disk(packed.source, output);
    while ((await readdir(join(work.path, "disks"))).length === 0) await sleep(1);
    await kill();
    await building;
    expect(await readdir(join(work.path, "disks"))).toEqual(["killed.ext4"]);
    await tool("e2fsck", "-fn", output);
    const { size } = await stat(output);
    expect(size).toBe(10 * 2 ** 30);
  });
});

describe(`${KILLS} kills at random moments`, () => {
  const box = booted(here, options);

  test(
    "no byte of a command's output, its input, an upload or a download is lost or doubled",
    async () => {
      const storming = new AbortController();
      const storm = async (): Promise<number> => {
        let kills = 0;
        let since = performance.now();
        while (kills < KILLS && !storming.signal.aborted) {
          const info = await here.vmsan.daemon.info();
          if (info === undefined) {
            await sleep(5);
            continue;
          }
          // On average it serves half as long as it takes to start, on this machine and now.
          await sleep(Math.random() * Math.max(100, performance.now() - since));
          process.kill(info.pid, "SIGKILL");
          since = performance.now();
          kills += 1;
        }
        storming.abort();
        return kills;
      };
      const rounds = { output: 0, input: 0, upload: 0, download: 0 };
      const repeat = async (
        kind: keyof typeof rounds,
        body: () => Promise<void>,
      ): Promise<void> => {
        while (!storming.signal.aborted) {
          await body();
          rounds[kind] += 1;
        }
      };
      const data = noise(6_000_000, 3);
      await writeFile(join(work.path, "data"), data);
      const lines = 200;
      const printed = Array.from({ length: 2000 }, (_, i) => `${i + 1}\n`)
        .join("")
        .repeat(lines);
      const script = `i=0; while [ $i -lt ${lines} ]; do seq 2000; i=$((i+1)); sleep 0.01; done; exit 7`;
      const guestFile = join(work.path, "in-guest");
      const all = Promise.all([
        storm(),
        repeat("output", async () => {
          const { stdout, exitCode } = await box.vm.exec(["sh", "-c", script]);
          expect({ exitCode, sum: sha256(stdout) }).toEqual({ exitCode: 7, sum: sha256(printed) });
        }),
        repeat("input", async () => {
          const { stdout } = await box.vm.exec(["cat"], { input: data });
          expect(sha256(stdout)).toBe(sha256(data));
        }),
        repeat("upload", async () => {
          await box.vm.upload([join(work.path, "data")], guestFile);
          expect(sha256(await readFile(guestFile))).toBe(sha256(data));
        }),
        repeat("download", async () => {
          await box.vm.download(join(work.path, "data"), join(work.path, "copy"));
          const hash = createHash("sha256");
          for await (const chunk of createReadStream(join(work.path, "copy")))
            hash.update(chunk as Buffer);
          expect(hash.digest("hex")).toBe(sha256(data));
        }),
      ]);
      await all.finally(() => storming.abort());
      for (const count of Object.values(rounds)) expect(count).toBeGreaterThan(0);
      expect(await box.vm.refresh()).toMatchObject({ status: "running", pid: box.vm.view.pid });
      process.stderr.write(`kills: ${KILLS}, rounds: ${JSON.stringify(rounds)}\n`);
    },
    60_000 + KILLS * 8000,
  );
});
