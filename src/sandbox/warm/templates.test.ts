/** Where templates are made, and where not. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import type { Sandboxes } from "../sandboxes.ts";
import { TemplateShelf } from "./template-shelf.ts";
import { Templates } from "./templates.ts";

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
