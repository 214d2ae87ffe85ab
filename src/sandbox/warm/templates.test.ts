/** Where templates are made, and where not; what of one that was not finished is removed. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { createRequest } from "../../client/options.ts";
import { layoutOf } from "../../util/paths.ts";
import { identityOf, isAlive } from "../../util/process-identity.ts";
import { VmRecords } from "../records/records.ts";
import type { Sandboxes } from "../sandboxes.ts";
import { newRecord } from "../starting/new-vm.ts";
import { VmTable } from "../table.ts";
import { fakeStages, quietLog } from "../testing.ts";
import { TemplateShelf } from "./template-shelf.ts";
import { Templates } from "./templates.ts";

test.each(["its own", "a copy's"])(
  "what a killed daemon had not finished is removed, and what runs for it ends where it is %s",
  async (whose) => {
    const dir = await mkdtemp(join(tmpdir(), "vmsan-templates-"));
    onTestFinished(async () => await rm(dir, { recursive: true }));
    const stages = fakeStages(dir);
    const table = new VmTable(new VmRecords(layoutOf(dir).vms), stages, quietLog);
    const templates = new Templates(table as unknown as Sandboxes, layoutOf(dir).templates);
    onTestFinished(async () => await templates.close());
    const id = "vm-00000001";
    const draft = join(layoutOf(dir).templates, `.new-${id}`);
    const original = join(dir, "original");
    await mkdir(draft, { recursive: true });
    await mkdir(original);
    const vmm = spawn("sleep", ["600"], { stdio: "ignore" });
    onTestFinished(() => void vmm.kill());
    await once(vmm, "spawn");
    const process = identityOf(vmm.pid ?? 0);
    if (process === undefined) throw new Error("it does not run");
    const choice = await stages.chooseDriver("auto");
    const record = newRecord(id, whose === "its own" ? draft : original, createRequest({}), choice);
    await writeFile(join(draft, "vm.json"), JSON.stringify({ ...record, process }));
    await templates.recover();
    expect(await readdir(layoutOf(dir).templates)).toEqual([]);
    expect(isAlive(process)).toBe(whose !== "its own");
  },
);

test("none is made on a disk that is nearly full, which is told once", async () => {
  const dir = await mkdtemp(join(tmpdir(), "vmsan-templates-"));
  onTestFinished(async () => await rm(dir, { recursive: true }));
  const lines: string[] = [];
  const write = (line: string): void => void lines.push(line);
  const sandboxes = { log: { info: write, error: write } } as unknown as Sandboxes;
  const templates = new Templates(sandboxes, dir);
  onTestFinished(async () => await templates.close());
  const room = vi.spyOn(TemplateShelf.prototype, "room");
  onTestFinished(() => room.mockRestore());
  const made: number[] = [];
  for (const [turn, free] of [2 ** 34, 2 ** 29, 0, 2 ** 31, 2 ** 20].entries()) {
    room.mockResolvedValue(free);
    await templates["whereRoom"](async () => await Promise.resolve(void made.push(turn)))();
  }
  expect(made).toEqual([0, 3]);
  expect(lines).toHaveLength(2);
});
