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

test("a list of a guest's that is forged to take all memory once it is read is refused", async () => {
  const type = "application/x-ndjson";
  expect(await parseReply(type, "{}\n".repeat(3))).toHaveLength(3);
  const line = `${JSON.stringify({ name: "a name of some length, as files have" })}\n`;
  await expect(parseReply(type, line.repeat(400_001))).rejects.toMatchObject({
    code: "ERR_AGENT_PROTOCOL",
    why: "It has more than 400000 lines.",
  });
});

test("a long list is read bit by bit, and nothing that holds everybody up for seconds is read", async () => {
  const type = "application/x-ndjson";
  const entry = { name: "a name of some length, as files have" };
  let turns = 0;
  let reading = true;
  const turn = (): void => {
    turns += 1;
    if (reading) setImmediate(turn);
  };
  setImmediate(turn);
  const list = await parseReply(type, `${JSON.stringify(entry)}\n`.repeat(100_000));
  reading = false;
  expect(turns).toBeGreaterThan(3);
  expect(list).toHaveLength(100_000);
  expect((list as unknown[]).at(-1)).toEqual(entry);
  const text = JSON.stringify("x".repeat(17 << 20));
  const refusal = { code: "ERR_AGENT_PROTOCOL", why: expect.stringMatching(/more than \d+ bytes/) };
  await expect(parseReply(type, text)).rejects.toMatchObject(refusal);
  await expect(parseReply("application/json", text)).rejects.toMatchObject(refusal);
});

test("so is one of objects and little else, and one of text is not", async () => {
  const json = "application/json";
  const refusal = {
    code: "ERR_AGENT_PROTOCOL",
    why: "It has an object or list in less than 32 bytes.",
  };
  for (const piece of ["[]", "{}", '{"a":[]}', '["[\\\\"]']) {
    const forged = `[${`${piece},`.repeat(500_000)}0]`;
    JSON.parse(forged);
    for (const type of [json, "application/x-ndjson"]) {
      await expect(parseReply(type, `${forged}\n`), piece).rejects.toMatchObject(refusal);
    }
  }
  const names = ["[".repeat(255), '"{[\\"'.repeat(40), "\\", '\\"'];
  const honest = Array.from({ length: 20_000 }, () => ({ names, size: 1, type: "file" }));
  expect(await parseReply(json, JSON.stringify(honest))).toEqual(honest);
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
