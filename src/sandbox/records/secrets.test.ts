/** Secrets of VMs on the fake driver: where the value is, and where it is not. */
import { mkdtemp, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createRequest } from "../../client/options.ts";
import type { CreateOptions } from "../../client/options.ts";
import type { VmSecrets } from "../../model/secret.ts";
import { parseCreateRequest } from "../../schema/api.ts";
import { describeVm } from "../snapshots/record.ts";
import { Sandboxes } from "../sandboxes.ts";
import { fakeStages, quietLog } from "../testing.ts";
import { VmRecords } from "./records.ts";

const value = "a value that nobody shall see";
let root = "";
let vms = "";
let all: Sandboxes;
/** What networks of this composer ask. */
let secretsOf: (vmId: string) => Promise<VmSecrets | undefined>;

async function start(): Promise<Sandboxes> {
  const { networks } = fakeStages(root);
  const stages = fakeStages(root, {
    networks: { ...networks, onSecrets: (call) => (secretsOf = call) },
  });
  const sandboxes = new Sandboxes(new VmRecords(vms), stages, quietLog);
  await sandboxes.recover();
  return sandboxes;
}

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "vmsan-secrets-"));
  vms = join(root, "vms");
  all = await start();
});
afterEach(async () => {
  for (const { id } of all.list()) await all.remove(id, true);
  await rm(root, { recursive: true, force: true });
});

/** Make a VM with secrets. */
async function make(secrets: CreateOptions["secrets"], more: CreateOptions = {}): Promise<string> {
  const options = { driver: "fake" as const, secrets, ...more } as CreateOptions;
  const request = parseCreateRequest(JSON.parse(JSON.stringify(createRequest(options))));
  const work = { signal: new AbortController().signal, progress: (): void => undefined };
  const { id } = await all.create(request, work, () => undefined);
  return id;
}

/** Names of a VM's files that hold a text. */
async function holders(id: string, text: string): Promise<string[]> {
  const names = await readdir(join(vms, id), { recursive: true });
  const found: string[] = [];
  for (const name of names) {
    const path = join(vms, id, name);
    if ((await stat(path)).isFile() && (await readFile(path)).includes(text)) found.push(name);
  }
  return found;
}

test("the value is in one file of the owner's alone, and the next daemon goes on with it", async () => {
  const id = await make([{ name: "KEY", value, domains: ["api.test", "*.deep.test:8443"] }]);
  expect(await holders(id, value)).toEqual(["secrets.json"]);
  expect((await stat(join(vms, id, "secrets.json"))).mode & 0o777).toBe(0o600);
  const view = all.get(id);
  expect(view.secrets).toEqual([
    { name: "KEY", domains: ["api.test", "*.deep.test:8443"], places: ["header", "query", "body"] },
  ]);
  expect(view.defaults.env).toEqual([expect.stringMatching(/^KEY=vmsanSecret[0-9a-f]{40}$/)]);
  expect(JSON.stringify(view)).not.toContain(value);
  const before = await secretsOf(id);
  await all.letGo();
  all = await start();
  expect(await secretsOf(id)).toEqual(before);
  expect(before?.material.values).toEqual({ KEY: value });
  expect(all.get(id).defaults).toEqual(view.defaults);
  await all.remove(id, true);
  expect(await readdir(vms)).toEqual([]);
});

test("each VM has a placeholder and an authority of its own, and a snapshot has neither", async () => {
  const wanted = [{ name: "KEY", value, domains: ["api.test"] }];
  const ids = [await make(wanted), await make(wanted)];
  const [one, two] = await Promise.all(ids.map(async (id) => await secretsOf(id)));
  expect(one?.rules[0]?.placeholder).not.toBe(two?.rules[0]?.placeholder);
  expect(one?.material.authority.key).not.toBe(two?.material.authority.key);
  const { record } = all.find(ids[0] ?? "");
  const machine = { vmm: "x", accelerator: "none" as const, cpu: "x" };
  const snapshot = JSON.stringify(describeVm(record, machine, { id: "snap-1", memory: true }));
  expect(snapshot).not.toMatch(/KEY|vmsanSecret|CERTIFICATE/);
});

test("without domains those of the policy count", async () => {
  const id = await make([{ name: "KEY", value }], { allowedDomains: ["a.test", "*.b.test"] });
  expect(all.get(id).secrets[0]?.domains).toEqual(["a.test", "*.b.test"]);
});

test.each<[string, CreateOptions["secrets"], CreateOptions, string]>([
  ["no domain", [{ name: "KEY", value }], {}, "ERR_VALIDATION_SECRET"],
  [
    "a short value",
    [{ name: "KEY", value: "short", domains: ["a.test"] }],
    {},
    "ERR_VALIDATION_SECRET",
  ],
  [
    "more than a line",
    [{ name: "KEY", value: `${value}\nX: y`, domains: ["a.test"] }],
    {},
    "ERR_VALIDATION_SECRET",
  ],
  [
    "the same name twice",
    ["a.test", "b.test"].map((domain) => ({ name: "KEY", value, domains: [domain] })),
    {},
    "ERR_VALIDATION_SECRET",
  ],
  [
    "a name that the environment has",
    [{ name: "KEY", value, domains: ["a.test"] }],
    { env: ["KEY=1"] },
    "ERR_VALIDATION_SECRET",
  ],
  [
    "no network card",
    [{ name: "KEY", value, domains: ["a.test"] }],
    { networkPolicy: "none" },
    "ERR_VALIDATION_POLICY_CONFLICT",
  ],
  [
    "a name that is none",
    [{ name: "K-Y", value, domains: ["a.test"] }],
    {},
    "ERR_VALIDATION_FLAGS",
  ],
])("refused, and nothing is left: %s", async (_, secrets, more, code) => {
  const error = (await make(secrets, more).catch((caught: unknown) => caught)) as Error;
  expect(error).toMatchObject({ code });
  expect(JSON.stringify(error)).not.toContain(value);
  expect(all.list()).toEqual([]);
  expect(await readdir(vms).catch(() => [])).toEqual([]);
});

test("a damaged file is said to be so without a word of it; a copy of the VM has none", async () => {
  const id = await make([{ name: "KEY", value, domains: ["api.test"] }]);
  await writeFile(join(vms, id, "secrets.json"), `{"values":{"KEY":"${value}`);
  const error = (await secretsOf(id).catch((caught: unknown) => caught)) as Error;
  expect(error).toMatchObject({ code: "ERR_VM_STATE" });
  expect(JSON.stringify(error)).not.toContain(value);
  await all.records.dropSecrets(id);
  expect(await readdir(join(vms, id))).not.toContain("secrets.json");
});
