import { resolve } from "node:path";
import { expect, test } from "vitest";
import { checkMounts, parseMountWord, parseTmpfs, parseVolumeWord } from "./mounts.ts";

const code = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return (error as { code: string }).code;
  }
  return "no error";
};
const bind = (source: string, target: string, readonly = false) => ({
  kind: "bind",
  source: resolve(source),
  target,
  readonly,
});
const volume = (name: string, target: string, more = {}) => ({
  kind: "volume",
  name,
  target,
  readonly: false,
  nocopy: false,
  ...more,
});

test.each([
  ["data:/var/lib/data", volume("data", "/var/lib/data")],
  ["My_data.1-x:/d:ro", volume("My_data.1-x", "/d", { readonly: true })],
  ["data:/d:ro,nocopy", volume("data", "/d", { readonly: true, nocopy: true })],
  ["data://a/./b//", volume("data", "/a/b")],
  ["./src:/work", bind("src", "/work")],
  ["..:/work:ro", bind("..", "/work", true)],
  [".:/work:z", bind(".", "/work")],
  ["/srv/a b:/work:rw", bind("/srv/a b", "/work")],
  ["/data", { kind: "anonymous", target: "/data" }],
])("-v %s", (word, mount) => {
  expect(parseVolumeWord(word)).toEqual(mount);
});

test.each([
  ["type=volume,src=data,dst=/d", volume("data", "/d")],
  ["source=data,destination=/d,readonly", volume("data", "/d", { readonly: true })],
  ["type=volume,src=a,target=/d,ro=false,volume-nocopy", volume("a", "/d", { nocopy: true })],
  ["src=a,dst=/d,volume-subpath=x/./y//z", volume("a", "/d", { part: "x/y/z" })],
  ["type=bind,src=/a:b,dst=/c,ro=1", bind("/a:b", "/c", true)],
  ['type=bind,"src=/a,""b""",dst=/c', bind('/a,"b"', "/c")],
  ["dst=/data", { kind: "anonymous", target: "/data" }],
])("--mount %s", (word, mount) => {
  expect(parseMountWord(word)).toEqual(mount);
});

test.each([
  "",
  ":/d",
  "data:",
  "data:d",
  "data:/",
  "data:/a/../b",
  "data:/proc/x",
  "data:/dev",
  "data:/d:rx",
  "a:/b:ro:/c",
  "d",
  "./src:/a\0",
])("-v %j is refused", (word) => {
  expect(code(() => parseVolumeWord(word))).toBe("ERR_VALIDATION_MOUNT");
});

test.each(["-x:/d", "a b:/d", "a\n:/d", `${"a".repeat(129)}:/d`, "~/src:/d", "src/x:/d"])(
  "the volume name in %j is refused",
  (word) => {
    expect(code(() => parseVolumeWord(word))).toBe("ERR_VALIDATION_VOLUME");
  },
);

test.each([
  "type=bind,dst=/d",
  "type=bind,src=/a,dst=/d,volume-nocopy",
  "type=volume,src=a",
  "type=ramfs,dst=/d",
  "type=volume,src=a,dst=/d,volume-subpath=/x",
  "type=volume,src=a,dst=/d,volume-subpath=x/../y",
  "type=volume,src=a,dst=/d,volume-subpath=",
  "dst=/d,volume-subpath=x",
  "type=bind,src=/a,dst=/d,volume-subpath=x",
  "type=tmpfs,dst=/d,volume-subpath=x",
  "type=volume,src=a,dst=/d,dst=/e",
  "type=volume,src=a,dst=/d,ro=maybe",
  "type=volume,src=a,dst=/d,size=3",
  "dst=/d,ro",
  '"dst=/d',
])("--mount %j is refused", (word) => {
  expect(code(() => parseMountWord(word))).toBe("ERR_VALIDATION_MOUNT");
});

test("places and volumes are there once, and outer places come first", () => {
  const list = ["x:/a/b", "y:/a", "/c"].map(parseVolumeWord);
  expect(checkMounts(list).map(({ target }) => target)).toEqual(["/a", "/c", "/a/b"]);
  expect(code(() => checkMounts(["x:/a", "/a"].map(parseVolumeWord)))).toBe("ERR_VALIDATION_MOUNT");
  expect(code(() => checkMounts(["x:/a", "x:/b"].map(parseVolumeWord)))).toBe(
    "ERR_VALIDATION_MOUNT",
  );
});

test("memory: its size, its mode, and what it cannot be", () => {
  const memory = (options: string) => parseTmpfs("/scratch", options);
  expect(memory("")).toEqual({ kind: "tmpfs", target: "/scratch" });
  expect(memory("rw,noexec,nosuid,size=65536k,mode=1770,uid=7,gid=8")).toEqual({
    kind: "tmpfs",
    target: "/scratch",
    sizeBytes: 64 << 20,
    mode: 0o1770,
    uid: 7,
    gid: 8,
    noexec: true,
  });
  expect(parseMountWord("type=tmpfs,dst=/dev/shm,tmpfs-size=1g")).toEqual({
    kind: "tmpfs",
    target: "/dev/shm",
    sizeBytes: 2 ** 30,
  });
  for (const wrong of ["size=1", "size=50%", "size=99999999999999g", "mode=888", "uid=a", "ro"]) {
    expect([wrong, code(() => memory(wrong))]).toEqual([wrong, "ERR_VALIDATION_MOUNT"]);
  }
  for (const wrong of ["/dev/shm/a", "/dev", "/", "a"]) {
    expect([wrong, code(() => parseTmpfs(wrong, ""))]).toEqual([wrong, "ERR_VALIDATION_MOUNT"]);
  }
  for (const wrong of ["type=tmpfs,src=a,dst=/a", "type=tmpfs,dst=/a,ro", "dst=/a,tmpfs-size=1m"]) {
    expect([wrong, code(() => parseMountWord(wrong))]).toEqual([wrong, "ERR_VALIDATION_MOUNT"]);
  }
});
