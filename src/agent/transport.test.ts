import { expect, test } from "vitest";
import { VmsanError } from "../model/errors.ts";
import { isFatal, longestReply, parseReply } from "./transport.ts";

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
  const line = `${JSON.stringify({ name: "a name of some length, as files have" })}\n`;
  expect(() => parseReply(type, line.repeat(400_001))).toThrow(
    expect.objectContaining({
      code: "ERR_AGENT_PROTOCOL",
      why: "It has more than 400000 lines.",
    }) as Error,
  );
});

test("so is one of objects and little else, and one of text is not", () => {
  const json = "application/json";
  const refusal = expect.objectContaining({
    code: "ERR_AGENT_PROTOCOL",
    why: "It has an object or list in less than 32 bytes.",
  }) as Error;
  for (const piece of ["[]", "{}", '{"a":[]}', '["[\\\\"]']) {
    const forged = `[${`${piece},`.repeat(500_000)}0]`;
    JSON.parse(forged);
    expect(() => parseReply(json, forged), piece).toThrow(refusal);
    expect(() => parseReply("application/x-ndjson", `${forged}\n`), piece).toThrow(refusal);
  }
  const names = ["[".repeat(255), '"{[\\"'.repeat(40), "\\", '\\"'];
  const honest = Array.from({ length: 20_000 }, () => ({ names, size: 1, type: "file" }));
  expect(parseReply(json, JSON.stringify(honest))).toEqual(honest);
});

test("a call's reply is as long as what it asks for may be", () => {
  const id = "0123456789abcdef";
  const longest = [
    "/v1/hello",
    "/v1/config",
    "/v1/fs/read",
    `/v1/streams/${id}/wait`,
    "/v1/fs/list",
  ];
  expect(longest.map((path) => longestReply(path, 200) / 1024)).toEqual([
    256,
    256,
    4 << 10,
    16 << 10,
    64 << 10,
  ]);
  expect(longestReply("/v1/fs/list", 500)).toBe(256 << 10);
});
