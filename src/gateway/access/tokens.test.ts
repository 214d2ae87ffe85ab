import { expect, test } from "vitest";
import type { GatewayKey } from "../../model/gateway.ts";
import { Tokens } from "./tokens.ts";

const keyOf = (id: string): GatewayKey => ({ id, project: "p" }) as GatewayKey;
const one = keyOf("00000001");
const two = keyOf("00000002");

test("a token is a key's, for one thing and one purpose, and dies with the key", async () => {
  let good = [one, two];
  const keys = { good: async () => await Promise.resolve(good) };
  const tokens = new Tokens("a".repeat(64), keys);
  const token = tokens.of(one, "data", "vm-1");
  // Another process with the same secret knows it.
  expect(await new Tokens("a".repeat(64), keys).bearer(token, "data", "vm-1")).toBe(one);
  expect(await new Tokens("b".repeat(64), keys).bearer(token, "data", "vm-1")).toBeUndefined();
  expect(await tokens.bearer(token, "traffic", "vm-1")).toBeUndefined();
  expect(await tokens.bearer(token, "data", "vm-2")).toBeUndefined();
  for (const text of [
    "",
    token.slice(1),
    `${token}0`,
    token.replace(one.id, two.id),
    `${one.id}${"0".repeat(48)}`,
    `${one.id}${"é".repeat(48)}`,
  ])
    expect(await tokens.bearer(text, "data", "vm-1")).toBeUndefined();
  const tried: string[] = [];
  const isIts = (text: string): boolean => tried.push(text) > 0 && text === token;
  const may = (): boolean => true;
  const [vm1, vm2] = [{ id: "vm-1" }, { id: "vm-2" }];
  expect(await tokens.whose("data", [vm2, vm1], may, isIts)).toEqual({ key: one, subject: vm1 });
  expect(await tokens.whose("data", [vm2], may, isIts)).toBeUndefined();
  // A stranger's text is compared with those of keys that may, and no other.
  tried.length = 0;
  expect(await tokens.whose("data", [vm1], (key) => key !== one, isIts)).toBeUndefined();
  expect(tried).toEqual([tokens.of(two, "data", "vm-1")]);
  expect(await tokens.holder(`${two.id}${"0".repeat(48)}`)).toBe(two);
  expect(await tokens.holder(two.id)).toBeUndefined();
  good = [two];
  expect(await tokens.holder(token)).toBeUndefined();
  expect(await tokens.bearer(token, "data", "vm-1")).toBeUndefined();
  expect(await tokens.whose("data", [vm1], may, isIts)).toBeUndefined();
});
