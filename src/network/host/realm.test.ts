/** What the realm makes of what the helper says, which runs its programs. */
import { expect, test } from "vitest";
import { VmsanError } from "../../model/errors.ts";
import { Realm, adminPathOf } from "./realm.ts";

/** A realm whose programs cannot be run, for a reason. */
function realmWithout(error: Error): Realm {
  const realm = new Realm();
  realm.launcher = async () => await Promise.reject(error);
  return realm;
}

test("a namespace that is gone is no missing program, and no error where errors are ignored", async () => {
  const realm = realmWithout(new Error("network helper: open /run/netns/vmsan-gone: no such file"));
  await expect(realm.ipIn("vmsan-test-gone", "link del dev a\n")).rejects.toMatchObject({
    code: "ERR_NETWORK_SETUP",
    why: expect.stringContaining("no such file") as unknown,
  });
  await realm.ipIn("vmsan-test-gone", "link del dev a\n", undefined, true);
});

test("a program that is missing is said to be, in no namespace as in one", async () => {
  const realm = realmWithout(new Error('network helper: exec: "nft": executable file not found'));
  await expect(realm.nft("")).rejects.toMatchObject({ code: "ERR_SETUP_MISSING_BINARY" });
  realm.hasNetns = () => true;
  await expect(realm.nftIn("vmsan-test", "")).rejects.toMatchObject({
    code: "ERR_SETUP_MISSING_BINARY",
  });
});

test("a program that took too long is said to be killed", async () => {
  const realm = new Realm();
  const killed = { code: null, signal: "killed", stdout: "", stderr: "" };
  realm.launcher = async () => await Promise.resolve(killed);
  await expect(realm.nft("")).rejects.toMatchObject({
    code: "ERR_NETWORK_SETUP",
    why: expect.stringContaining("30 s") as unknown,
  });
});

test("without a helper this process runs them itself", async () => {
  const gone = { code: "ERR_NETWORK_HELPER", message: "gone", why: "", fix: "" } as const;
  const realm = realmWithout(new VmsanError(gone));
  Object.defineProperty(realm, "prefix", { value: ["true"] });
  await realm.nft("");
});

test("what a helper may have done is done again only where that is no harm", async () => {
  const lost = { code: "ERR_NETWORK_HELPER_LOST", message: "lost", why: "", fix: "" } as const;
  const realm = realmWithout(new VmsanError(lost));
  // Runs here: `true` in the place of each program.
  Object.defineProperty(realm, "prefix", { value: ["true"] });
  await realm.nft("table inet vmsan\n");
  await realm.nftIn("vmsan-test", "table inet vmsan\n");
  await realm.ip("link del dev a\n", undefined, true);
  for (const run of [
    realm.ip("link add a type dummy\n"),
    realm.ipIn("vmsan-test", "link add a type dummy\n"),
    realm.tcIn("vmsan-test", "qdisc add dev a root tbf\n"),
  ]) {
    await expect(run).rejects.toMatchObject({ code: "ERR_NETWORK_HELPER_LOST" });
  }
});

test("hardware addresses are asked for by name, so that however many links there are, none is cut off", async () => {
  const realm = new Realm();
  const asked: string[][] = [];
  realm.launcher = async (_netns, argv, input) => {
    expect(argv).toContain("-brief");
    const names = [...input.matchAll(/^link show dev (\S+)$/gm)].map(([, name = ""]) => name);
    asked.push(names);
    const there = names.filter((name) => name !== "vmsan3");
    const stdout = there.map((name) => `${name}@if2   UP   02:00:00:00:00:01 <UP>\n`).join("");
    return await Promise.resolve({ code: 1, signal: null, stdout, stderr: "" });
  };
  const names = Array.from({ length: 2500 }, (_, slot) => `vmsan${slot}`);
  const addresses = await realm.hardwareAddresses(names);
  expect(asked.map(({ length }) => length)).toEqual([1000, 1000, 500]);
  expect(addresses.size).toBe(2499);
  expect(addresses.get("vmsan0")).toBe("02:00:00:00:00:01");
  expect(await realm.hardwareAddresses([])).toEqual(new Map());
});

test("the directory that this process is in is no place to look for programs", () => {
  const system = "/usr/sbin:/sbin:/usr/bin:/bin";
  expect(adminPathOf(undefined)).toBe(system);
  expect(adminPathOf("")).toBe(system);
  expect(adminPathOf("/opt/bin::/bin:")).toBe(`/opt/bin:/bin:${system}`);
});
