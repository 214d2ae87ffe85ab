import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { makeTar, storeLayer } from "../../layers/testing.ts";
import type { Mount } from "../../model/mount.ts";
import { directBuilder } from "../../rootfs/direct.ts";
import { placeMounts } from "./mounts.ts";

const dir = mkdtempSync(join(tmpdir(), "vmsan-places-"));
const image = join(dir, "disk.ext4");
afterAll(() => rmSync(dir, { recursive: true, force: true }));
beforeAll(async () => {
  const layer = makeTar([
    { path: "run/lock", kind: "directory" },
    { path: "var/run", kind: "symlink", link: "/run" },
    { path: "var/lock", kind: "symlink", link: "run/lock" },
    { path: "up", kind: "symlink", link: "../../var/run" },
    { path: "proc-by-link", kind: "symlink", link: "/proc" },
    { path: "root-by-link", kind: "symlink", link: "/" },
    { path: "circle", kind: "symlink", link: "/elcric" },
    { path: "elcric", kind: "symlink", link: "circle" },
    { path: "file-by-link", kind: "symlink", link: "file" },
    { path: "file", data: "x" },
  ]);
  await directBuilder.build(
    [storeLayer(dir, layer, "gzip")],
    image,
    { sizeBytes: 64 << 20, journal: false },
    { signal: new AbortController().signal },
  );
});

const at = (target: string): Mount => ({ kind: "anonymous", target });
const placesOf = (...targets: string[]): string[] =>
  placeMounts(image, targets.map(at)).map(({ target }) => target);

test.each([
  ["/var/run/act", "/run/act"],
  ["/var/run", "/run"],
  ["/var/lock", "/run/lock"],
  ["/var/lock/new/place", "/run/lock/new/place"],
  ["/up/x", "/run/x"],
  ["/nothing/there", "/nothing/there"],
  ["/root-by-link/data", "/data"],
])("what is asked for at %s is mounted at %s", (asked, place) => {
  expect(placesOf(asked)).toEqual([place]);
});

test.each([
  ["/file", "ERR_MOUNT_TARGET"],
  ["/file-by-link", "ERR_MOUNT_TARGET"],
  ["/file-by-link/x", "ERR_MOUNT_TARGET"],
  ["/circle/x", "ERR_MOUNT_TARGET"],
  ["/proc-by-link/sys", "ERR_VALIDATION_MOUNT"],
  ["/root-by-link", "ERR_VALIDATION_MOUNT"],
])("links of an image lead nowhere where nothing may be mounted: %s", (target, code) => {
  expect(() => placesOf(target)).toThrow(expect.objectContaining({ code }) as Error);
});

test("two names of one place are one place, and places within others come behind them", () => {
  expect(() => placesOf("/var/run/x", "/run/x")).toThrow(
    expect.objectContaining({ why: "Two mounts have this place in the guest." }) as Error,
  );
  expect(placesOf("/var/lock/x", "/run")).toEqual(["/run", "/run/lock/x"]);
});
