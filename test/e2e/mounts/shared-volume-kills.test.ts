/**
 * Daemon, VMMs and file servers are killed at random moments while three VMs write to one shared volume: what a guest's fsync has
 * acknowledged is there on the host, no file is half of one, nothing is left. Only with VMSAN_TEST_MOUNT_KILLS=N, the number of kills.
 */
import { mkdir, readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import type { Vm } from "../../../src/client/vm.ts";
import { layoutOf } from "../../../src/util/paths.ts";
import { buildGo } from "../../firecracker/support.ts";
import { installation, temporary } from "../../fixtures/ladder.ts";
import { busyboxLayer, umociImage } from "../images.ts";
import { root, strayProcesses } from "../support.ts";
import { victimsOf } from "./victims.ts";

const KILLS = Number(process.env["VMSAN_TEST_MOUNT_KILLS"] ?? 0);
if (KILLS === 0) {
  process.stderr.write(
    "shared-volume-kills: left out, since each kill is followed by a boot; VMSAN_TEST_MOUNT_KILLS=30 runs it\n",
  );
}
const NAMES = ["one", "two", "three"];
/** Names that a writer's files take turns with (test/shares/together.go). */
const SLOTS = 20;

/** A VM that writes, and the last number that its guest has acknowledged. */
interface Writer {
  vm: Vm;
  name: string;
  acknowledged: number;
}

describe.runIf(KILLS > 0)(`${KILLS} kills of what serves a shared volume`, () => {
  const here = installation("kernel");
  const work = temporary();

  /** Have it write from now on, wherever it was cut off. */
  async function write(writer: Writer): Promise<void> {
    const { vm, name } = writer;
    const { status } = await vm.refresh();
    if (status === "stopped") await vm.start();
    const running = await vm.exec(["busybox", "pidof", "probe"]);
    if (running.exitCode === 0) return;
    const child = vm.spawn(["probe", "acknowledge", "/data", name]);
    let text = "";
    child.stdout.on("data", (part: Buffer) => {
      text += part.toString();
      const lines = text.split("\n");
      text = lines.pop() ?? "";
      writer.acknowledged = Math.max(writer.acknowledged, ...lines.map(Number));
    });
    // It ends with what it writes to.
    child.exit.catch(() => undefined);
    await child.started;
  }

  /** All that was acknowledged is there, and all files are whole. */
  async function check(data: string, { name, acknowledged }: Writer): Promise<void> {
    const log = (await readFile(join(data, `${name}.log`), "utf8")).split("\n");
    expect(log.pop()).toBe("");
    expect(log).toEqual(log.map((_, index) => String(index)));
    expect(log.length).toBeGreaterThan(acknowledged);
    const files = (await readdir(data)).filter((file) => file.startsWith(`${name}-`));
    expect(files).toHaveLength(Math.min(SLOTS, files.length));
    for (const file of files) {
      const lines = (await readFile(join(data, file), "utf8")).trimEnd().split("\n");
      const number = Number(lines[0]);
      expect([file, new Set(lines).size, lines.length]).toEqual([
        `${name}-${number % SLOTS}`,
        1,
        ((number % 40) + 1) * 100,
      ]);
      // None is older than what was acknowledged under its name.
      expect(number).toBeGreaterThan(acknowledged - SLOTS);
    }
  }

  test(
    "lose nothing that was acknowledged, and leave nothing",
    async () => {
      const image = await umociImage(join(work.path, "image"), [
        busyboxLayer,
        async (rootfs) => {
          await mkdir(join(rootfs, "data"));
          buildGo(join(root, "test/shares"), ".", join(rootfs, "bin/probe"));
        },
      ]);
      await here.vmsan.volumes.create("data", { shared: true });
      const mounts = ["data:/data"];
      const writers = await Promise.all(
        NAMES.map(async (name): Promise<Writer> => {
          const options = { name, image, memory: 128, networkPolicy: "none" as const, mounts };
          return { vm: await here.vmsan.create(options), name, acknowledged: -1 };
        }),
      );
      const data = join(layoutOf(here.dir).volumes, "data/data");
      const killed: Record<string, number> = {};
      for (let kills = 0; kills < KILLS; kills += 1) {
        const before = writers.map(({ acknowledged }) => acknowledged);
        // All of them are at it; one whose mount is not back yet ends at once, and begins again.
        const idle = async (): Promise<string[]> => {
          await Promise.all(writers.map(write));
          const left = writers.filter((one, index) => one.acknowledged <= (before[index] ?? 0));
          return left.map(({ name }) => name);
        };
        await expect.poll(idle, { timeout: 120_000, interval: 500 }).toEqual([]);
        await sleep(Math.random() * 2000);
        const hit = writers[Math.floor(Math.random() * writers.length)];
        if (hit === undefined) continue;
        const [what, strike] = Object.entries(victimsOf(here, hit.vm))[kills % 3] ?? [];
        await strike?.();
        killed[what ?? ""] = (killed[what ?? ""] ?? 0) + 1;
        await expect
          .poll(async () => (await hit.vm.refresh()).status, { timeout: 120_000 })
          .toMatch(/^(?:running|stopped)$/);
        for (const writer of writers) await check(data, writer);
      }
      const numbers = writers.map(({ acknowledged }) => acknowledged);
      process.stderr.write(
        `shared-volume-kills: ${JSON.stringify(killed)}, acknowledged ${numbers.join(", ")}\n`,
      );
      for (const { vm } of writers) await vm.remove();
      for (const writer of writers) await check(data, writer);
      const left = (await readdir(data)).filter((file) => file.startsWith("."));
      expect(left.length).toBeLessThanOrEqual(NAMES.length);
      await expect.poll(() => strayProcesses(here.dir), { timeout: 60_000 }).toEqual([]);
      expect(await readdir(layoutOf(here.dir).vms)).toEqual([]);
      expect((await here.vmsan.volumes.prune()).volumes).toEqual(["data"]);
    },
    600_000 + KILLS * 120_000,
  );
});
