/** What `vmsan setup` has made for the first VM of a fresh host. */
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { WarmReply } from "../../../src/model/api.ts";
import { agentBinary } from "../../../src/util/package.ts";
import { makeTar } from "../../../src/layers/testing.ts";
import { installation, layout, temporary } from "../../fixtures/ladder.ts";
import { makeImage } from "../../registry/fixture.ts";
import { strayProcesses, vmsan, vmsanOk } from "../support.ts";

const LIMIT_MS = 600_000;
const WAIT = { timeout: LIMIT_MS / 2, interval: 200 };
const here = installation("kernel");
const place = temporary();
const program = makeTar([{ path: "agent", mode: 0o755, data: readFileSync(agentBinary()) }]);
const image = layout(place, makeImage({ layers: [program] }));

/** `vmsan setup` of a runtime that is not there yet. */
async function setup(warm = ""): Promise<WarmReply | undefined> {
  const catalogue = { schema: 1, runtimes: { tiny: { image: image.source } } };
  await writeFile(join(here.dir, "runtimes.json"), JSON.stringify(catalogue));
  const args = ["setup", "--runtime", "tiny", "--json"];
  const said = await vmsanOk(args, { dir: here.dir, env: { VMSAN_WARM: warm } });
  return (JSON.parse(said) as { warm?: WarmReply }).warm;
}

/** Names in a directory of the installation. */
const names = async (...path: string[]): Promise<string[]> =>
  // ENOENT: nobody has made it yet.
  await readdir(join(here.dir, ...path)).catch(() => []);
const templates = async (kind: RegExp): Promise<string[]> =>
  (await names("templates")).filter((name) => kind.test(name));

/** Nothing is left of the VM that was to be. */
async function nothingLeft(): Promise<void> {
  await expect.poll(() => names("vms"), WAIT).toEqual([]);
  await expect.poll(() => strayProcesses(here.dir), WAIT).toEqual([]);
  expect(await names("images", "pins")).toEqual([]);
  expect((await names("network")).filter((name) => name.startsWith("vm-"))).toEqual([]);
  expect(await templates(/^\.new/)).toEqual([]);
}

test(
  "the first VM of a fresh host starts from what setup has had made; a daemon that is killed leaves nothing of it",
  async () => {
    expect(await setup("off")).toBeUndefined();
    expect(await here.vmsan.daemon.info()).toBeUndefined();
    expect(await setup()).toEqual({ kept: true });
    // One daemon is killed while it makes the machine, one while it makes the image's template.
    for (const kind of [/^\.new/, /^booted-/]) {
      await expect.poll(() => templates(kind), WAIT).toHaveLength(1);
      process.kill((await here.vmsan.daemon.info())?.pid ?? 0, "SIGKILL");
      await vmsanOk(["list"], here);
      await nothingLeft();
      expect(await setup()).toEqual({ kept: true });
    }
    await expect.poll(() => templates(/^[0-9a-f]{32}$/), WAIT).toHaveLength(1);
    expect(await templates(/^booted-/)).toHaveLength(1);
    await nothingLeft();
    const env = { VMSAN_WARM: "" };
    const run = ["run", "--verbose", "tiny", "--", "/agent", "version"];
    const first = await vmsan(run, { dir: here.dir, env });
    expect(first.code, first.stderr).toBe(0);
    expect(first.stderr).toMatch(/"load":.*"answer":/);
    // Of another size of disk there is the machine alone.
    const other = await vmsan(["run", "--disk", "3g", ...run.slice(1)], { dir: here.dir, env });
    expect(other.stderr).toMatch(/"load":.*"boot":/);
  },
  LIMIT_MS,
);

test("nothing is made for VMs that boot in any case", async () => {
  expect(await here.vmsan.warm({ warm: false })).toMatchObject({ kept: false });
  expect(await here.vmsan.warm({ driver: "fake", warm: true })).toMatchObject({ kept: false });
  expect(await here.vmsan.warm({ init: true, warm: true })).toMatchObject({ kept: false });
});
