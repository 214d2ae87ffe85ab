/** What a killed engine leaves of its containers' documents. */
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporarySibling } from "../../../util/atomic.ts";
import { ContainerStore } from "./store.ts";

test("what was being written is removed, what is damaged is kept and said", async () => {
  const dir = await mkdtemp(join(tmpdir(), "vmsan-docker-store-"));
  try {
    const store = new ContainerStore(dir);
    const said: string[] = [];
    const log = { info: () => undefined, error: (line: string) => void said.push(line) };
    expect(await store.load(log)).toEqual({ records: [], damaged: [] });
    const id = "0".repeat(64);
    const path = join(dir, "containers", `${id}.json`);
    await writeFile(path, "{");
    await writeFile(temporarySibling(path), "{");
    expect(await store.load(log)).toEqual({ records: [], damaged: [id] });
    expect(await readdir(join(dir, "containers"))).toEqual([`${id}.json`]);
    expect(said).toEqual([expect.stringContaining(id)]);
  } finally {
    await rm(dir, { recursive: true });
  }
});
