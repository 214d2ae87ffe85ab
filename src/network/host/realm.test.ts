/** What the realm makes of what the helper says, which runs its programs. */
import { expect, test } from "vitest";
import { VmsanError } from "../../model/errors.ts";
import { Realm } from "./realm.ts";

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
