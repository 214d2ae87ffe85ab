import { describe, expect, test } from "vitest";
import {
  formatBytes,
  formatDuration,
  parseDiskSize,
  parseDuration,
  parseInteger,
  parseMemory,
} from "./units.ts";

const code = (body: () => unknown): string => {
  try {
    return `no error, ${JSON.stringify(body())}`;
  } catch (error) {
    return (error as { code: string }).code;
  }
};

describe("durations", () => {
  test.each([
    ["30s", 30_000],
    ["5m", 300_000],
    ["1h", 3_600_000],
    ["2h30m", 9_000_000],
    ["7", 420_000],
  ])("%s", (text, ms) => expect(parseDuration(text)).toBe(ms));
  test.each(["banana5m", "-5", "Infinity", "", "5m2h", "1.5h", "0s", "5 m", "30d", "99999h"])(
    "%j is refused",
    (text) => expect(code(() => parseDuration(text))).toBe("ERR_VALIDATION_DURATION"),
  );
});

test.each(["12s", "5m", "1h", "2h30m", "1h1s", "590h"])(
  "a duration reads as it was written: %s",
  (text) => expect(formatDuration(parseDuration(text))).toBe(text),
);

describe("sizes", () => {
  test.each([
    ["512", 512],
    ["512m", 512],
    ["2g", 2048],
  ])("memory %s", (text, mib) => expect(parseMemory(text)).toBe(mib));
  test.each(["127", "33g", "1e3", "0x200", "", "512k"])("memory %j is refused", (text) =>
    expect(code(() => parseMemory(text))).toBe("ERR_VALIDATION_INTEGER"),
  );
  test.each(["10", "10g", "10gb", "10GiB"])("disk %s", (text) =>
    expect(parseDiskSize(text)).toBe(10 * 2 ** 30),
  );
  test.each(["0", "1025", "10m", "ten", "-1"])("disk %j is refused", (text) =>
    expect(code(() => parseDiskSize(text))).toBe("ERR_VALIDATION_DISK_SIZE"),
  );
  test.each(["0", "33", "2x", "1e1", "", " 2"])("vcpus %j is refused", (text) =>
    expect(code(() => parseInteger("vcpus", text, 1, 32))).toBe("ERR_VALIDATION_INTEGER"),
  );
  test("formatBytes", () => {
    expect(formatBytes(12)).toBe("12 B");
    expect(formatBytes(1536)).toBe("1.5 KiB");
    expect(formatBytes(10 * 2 ** 30)).toBe("10 GiB");
  });
});

test("memory and disks within other bounds, as limits have them", () => {
  expect(parseMemory("64g", 0, 2 ** 31, "--max-memory")).toBe(65_536);
  expect(parseDiskSize("2t", 0, 2 ** 20, "--max-disk")).toBe(2 * 2 ** 40);
  expect(parseDuration("1d12h")).toBe(36 * 3_600_000);
  expect(code(() => parseMemory("lots", 0, 1, "--max-memory"))).toBe("ERR_VALIDATION_INTEGER");
  expect(code(() => parseDuration("30d"))).toBe("ERR_VALIDATION_DURATION");
});
