import { beforeEach, expect, test } from "vitest";
import type { VmView } from "../../../model/api.ts";
import type { GatewayKey } from "../../../model/gateway.ts";
import { Tokens } from "../../access/tokens.ts";
import { SANDBOX_LABELS } from "../sandbox.ts";
import { ProvenSandboxes } from "./proven.ts";

const ours = { id: "00000001", project: "ours" } as GatewayKey;
const other = { id: "00000002", project: "other" } as GatewayKey;
const sandboxOf = (id: string, project: string): VmView =>
  ({ id, project, labels: { [SANDBOX_LABELS.template]: "base" } }) as unknown as VmView;

let good: GatewayKey[];
let views: VmView[];
let lists: number;
let tokens: Tokens;
let proven: ProvenSandboxes;

beforeEach(() => {
  good = [ours, other];
  views = [sandboxOf("vm-1", "ours"), sandboxOf("vm-2", "other")];
  lists = 0;
  tokens = new Tokens("a".repeat(64), { good: async () => await Promise.resolve(good) });
  const list = async (): Promise<VmView[]> => {
    lists += 1;
    return await Promise.resolve([...views]);
  };
  proven = new ProvenSandboxes({ list }, tokens);
});

test("a sandbox is found by its token, also one that was made a moment ago, and asked for once", async () => {
  const token = tokens.of(ours, "data", "vm-1");
  expect(await proven.ofToken(token)).toEqual({ key: ours, id: "vm-1" });
  expect(await proven.ofProof((text) => text === token, "us")).toEqual({ key: ours, id: "vm-1" });
  expect(lists).toBe(1);
  views.push(sandboxOf("vm-3", "ours"));
  const made = { key: ours, id: "vm-3" };
  expect(await proven.ofToken(tokens.of(ours, "data", "vm-3"))).toEqual(made);
  expect(lists).toBe(2);
});

test("no token is another project's key's, of another purpose, or of a key that is gone", async () => {
  expect(await proven.ofToken(tokens.of(other, "data", "vm-1"))).toBeUndefined();
  expect(await proven.ofToken(tokens.of(ours, "traffic", "vm-1"))).toBeUndefined();
  const token = tokens.of(ours, "data", "vm-1");
  expect(await proven.ofToken(token)).toBeDefined();
  good = [other];
  expect(await proven.ofToken(token)).toBeUndefined();
  expect(await proven.ofProof((text) => text === token, "us")).toBeUndefined();
});

test("what no key can have made asks the daemon for nothing", async () => {
  for (const text of ["", "x", "0".repeat(56), "f".repeat(56), ours.id])
    expect(await proven.ofToken(text)).toBeUndefined();
  expect(await proven.ofProof(undefined, "us")).toBeUndefined();
  expect(lists).toBe(0);
});

test("guesses at tokens cost one question, and keep nobody waiting", async () => {
  // They know a key's ID, which is half of nothing.
  const guess = `${ours.id}${"0".repeat(48)}`;
  const asked = Array.from({ length: 300 }, async () => await proven.ofToken(guess));
  expect(await proven.ofToken(tokens.of(ours, "data", "vm-1"))).toEqual({ key: ours, id: "vm-1" });
  expect(new Set(await Promise.all(asked))).toEqual(new Set([undefined]));
  expect(lists).toBe(1);
});

test("forged signatures keep nobody else from theirs, cost few questions, and too many are refused", async () => {
  const forged = Array.from({ length: 300 }, async () => await proven.ofProof(() => false, "them"));
  const results = Promise.allSettled(forged);
  const token = tokens.of(ours, "data", "vm-1");
  const real = await proven.ofProof((text) => text === token, "us");
  expect(real).toEqual({ key: ours, id: "vm-1" });
  const refused = (await results).filter(({ status }) => status === "rejected");
  expect(refused.length).toBeGreaterThanOrEqual(99);
  for (const result of refused)
    expect(result).toMatchObject({ reason: { code: "resource_exhausted" } });
  expect(lists).toBeLessThanOrEqual(2);
});
