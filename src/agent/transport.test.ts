import { expect, test } from "vitest";
import { VmsanError } from "../model/errors.ts";
import { isFatal, parseReply } from "./transport.ts";

test("what does not get better by itself is not tried again", () => {
  const fatal = (code: string): boolean => isFatal(new VmsanError({ code, message: "no" }));
  for (const code of [
    "ERR_VM_NOT_RUNNING",
    "ERR_AGENT_VERSION",
    "ERR_SNAPSHOT_DAMAGED",
    "ERR_SNAPSHOT_INCOMPATIBLE",
    "ERR_MOUNT_SOURCE",
    "ERR_VOLUME_IN_USE",
  ]) {
    expect(fatal(code), code).toBe(true);
  }
  for (const code of ["ERR_AGENT_UNREACHABLE", "ERR_TIMEOUT_AGENT", "ERR_VMM_MONITOR"]) {
    expect(fatal(code), code).toBe(false);
  }
  expect(isFatal(new Error("ECONNRESET"))).toBe(false);
});

test("a list of a guest's that is forged to take all memory once it is read is refused", () => {
  const type = "application/x-ndjson";
  expect(parseReply(type, "{}\n".repeat(3))).toHaveLength(3);
  expect(() => parseReply(type, "{}\n".repeat(400_001))).toThrow(
    expect.objectContaining({
      code: "ERR_AGENT_PROTOCOL",
      why: "It has more than 400000 lines.",
    }) as Error,
  );
});
