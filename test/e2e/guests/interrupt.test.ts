/** Ctrl-C in every phase of `run` leaves no process, temporary file, socket or half a cache entry. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { installation } from "../../fixtures/ladder.ts";
import { strayProcesses, tree, vmsan, vmsanOk } from "../support.ts";
import { registryWithImage } from "../images.ts";

const here = installation("kernel");
let registry: Awaited<ReturnType<typeof registryWithImage>>;
beforeAll(async () => {
  registry = await registryWithImage();
  // So that what is compared below is not the daemon's first start.
  await vmsanOk(["list"], here);
});
afterAll(() => registry.close());

/** What may stay: the store's empty structure, locks, the daemon's own files, finished entries. */
async function leftovers(): Promise<string[]> {
  const all = await tree(here.dir);
  return all.filter(
    (path) =>
      path.startsWith("vms/") ||
      /(^|\/)\.?tmp|\.part|\.building|\/building-|staging/.test(path) ||
      /^images\/leases\/./.test(path) ||
      path.replace("run/daemon.sock", "").endsWith(".sock"),
  );
}

/** Interrupt `run` when its progress says that the phase has begun. */
async function interruptAt(phase: string, args: string[]): Promise<number | null> {
  const outcome = await vmsan(["run", "--verbose", "--json", "--memory", "256", ...args], {
    dir: here.dir,
    onProcess: (child) => {
      let sent = false;
      child.stderr?.on("data", (chunk: Buffer) => {
        if (sent || !chunk.toString().includes(`"phase":"${phase}"`)) return;
        sent = true;
        child.kill("SIGINT");
      });
    },
  });
  if (outcome.code !== 130)
    throw new Error(`status ${outcome.code}: ${outcome.stderr}${outcome.stdout.toString()}`);
  return outcome.code;
}

for (const phase of ["pull", "build", "boot"]) {
  test(`during ${phase}`, async () => {
    if (phase === "pull") await vmsan(["image", "rm", registry.image], here);
    await vmsanOk(["image", "prune"], here);
    registry.slow(phase === "pull");
    expect(await interruptAt(phase, [registry.image, "--", "/bin/true"])).toBe(130);
    registry.slow(false);
    expect(strayProcesses(here.dir)).toEqual([]);
    expect(await leftovers()).toEqual([]);
    // The same command, not interrupted, works: no half-made cache entry is taken for a whole one.
    const outcome = await vmsan(
      ["run", "--memory", "256", registry.image, "--", "/bin/busybox", "echo", "whole"],
      here,
    );
    expect(outcome.stdout.toString()).toBe("whole\n");
  });
}

test("during exec", async () => {
  const outcome = await vmsan(
    [
      "run",
      "--memory",
      "256",
      registry.image,
      "--",
      "/bin/busybox",
      "sh",
      "-c",
      "echo up; sleep 1000",
    ],
    {
      dir: here.dir,
      onProcess: (child) => child.stdout?.once("data", () => child.kill("SIGINT")),
    },
  );
  expect(outcome.code).toBe(130);
  expect(strayProcesses(here.dir)).toEqual([]);
  expect(await leftovers()).toEqual([]);
  expect(await readFile(join(here.dir, "run/daemon.log"), "utf8")).not.toMatch(/could not/);
});
