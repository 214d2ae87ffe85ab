import { expect, test } from "vitest";
import { VmsanError, asVmsanError } from "./errors.ts";

const system = (code: string): Error =>
  Object.assign(new Error(`${code}: it failed, open '/x'`), { code });

test.each([
  ["ENOSPC", "ERR_DISK_FULL", /df -i/],
  ["EDQUOT", "ERR_DISK_FULL", /quota/],
  ["EROFS", "ERR_HOST_PERMISSION", /VMSAN_DIR/],
  ["EACCES", "ERR_HOST_PERMISSION", /VMSAN_DIR/],
  ["EMFILE", "ERR_HOST_FILES", /ulimit -n/],
  ["ENFILE", "ERR_HOST_FILES", /ulimit -n/],
  ["ENOMEM", "ERR_HOST_MEMORY", /memory/],
  ["EAGAIN", "ERR_HOST_MEMORY", /processes/],
])("%s of the host has a code and a remedy of its own", (errno, code, fix) => {
  const error = asVmsanError(system(errno), "Cannot do that", "ERR_VM_START");
  expect(error.toJSON()).toMatchObject({ code, message: "Cannot do that" });
  expect(error.why).toContain(errno);
  expect(error.fix).toMatch(fix);
});

test("a caller that knows the remedy keeps its code, and other errors the caller's", () => {
  const own = asVmsanError(system("ENOSPC"), "No", "ERR_MINE", "Do this.");
  expect(own.toJSON()).toMatchObject({ code: "ERR_MINE", fix: "Do this." });
  expect(asVmsanError(new TypeError("bug"), "No").code).toBe("ERR_INTERNAL");
  expect(asVmsanError("text", "No").why).toBe("text");
  const known = new VmsanError({ code: "ERR_X", message: "x" });
  expect(asVmsanError(known, "No")).toBe(known);
});
