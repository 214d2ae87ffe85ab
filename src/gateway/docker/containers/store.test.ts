/** What a killed engine leaves of its containers' documents. */
import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { ContainerRecord } from "../../../schema/docker.ts";
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

test("of many writes at once the last stands, and nothing of a container that is removed meanwhile", async () => {
  const dir = await mkdtemp(join(tmpdir(), "vmsan-docker-store-"));
  try {
    const store = new ContainerStore(dir);
    const id = "0".repeat(64);
    const path = join(dir, "containers", `${id}.json`);
    const record = { id, restartCount: 0 } as ContainerRecord;
    const written: Promise<void>[] = [];
    for (; record.restartCount < 50; record.restartCount += 1) {
      // Records of many sizes: the smaller are written faster.
      record.env = record.restartCount % 2 === 0 ? ["x".repeat(1 << 20)] : [];
      written.push(store.save(record));
      if (record.restartCount % 5 === 0) await written.at(-1);
    }
    written.push(store.save(record));
    await store.settled();
    expect(JSON.parse(await readFile(path, "utf8"))).toMatchObject({ restartCount: 50 });
    await Promise.all(written);
    const last = store.save(record);
    await store.remove(id);
    await last;
    expect(await readdir(join(dir, "containers"))).toEqual([]);
  } finally {
    await rm(dir, { recursive: true });
  }
});
