import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Mount } from "../model/mount.ts";
import { checkSources } from "./sources.ts";

let dir = "";
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "vmsan-sources-"));
  await mkdir(join(dir, "own", "run"), { recursive: true });
  await mkdir(join(dir, "own-not"));
  await mkdir(join(dir, "real", "sub"), { recursive: true });
  await writeFile(join(dir, "file"), "");
  await writeFile(join(dir, "own", "secret"), "");
  await symlink(join(dir, "file"), join(dir, "to-file"));
  await symlink(join(dir, "real"), join(dir, "link"));
  await symlink("circle", join(dir, "circle"));
});
afterAll(async () => await rm(dir, { recursive: true, force: true }));

const shared = (...sources: string[]): Promise<Mount[]> =>
  checkSources(
    sources.map((source) => ({ kind: "bind", source, target: "/work", readonly: false })),
    join(dir, "own"),
  );

test("directories may be shared, also one that holds vmsan's own, and files", async () => {
  await shared(join(dir, "real"), join(dir, "real", "sub"), join(dir, "own-not"), dir);
  const [one, other] = await shared(join(dir, "file"), join(dir, "real"));
  expect([one, other]).toEqual([
    { kind: "bind", source: join(dir, "file"), target: "/work", readonly: false, file: true },
    { kind: "bind", source: join(dir, "real"), target: "/work", readonly: false },
  ]);
});

test("what may not be shared is refused with what to do", async () => {
  const why: Record<string, RegExp> = {
    [join(dir, "none")]: /no such directory/i,
    [join(dir, "own", "secret")]: /vmsan's own/,
    [join(dir, "to-file")]: /symbolic link/,
    [join(dir, "link")]: /symbolic link/,
    [join(dir, "link", "sub")]: /symbolic link/,
    [join(dir, "circle")]: /ELOOP/,
    [join(dir, "own")]: /vmsan's own/,
    [join(dir, "own", "run")]: /vmsan's own/,
    "/": /whole host/,
    "/dev": /devices/,
    "/dev/pts": /devices/,
    "/proc": /kernel's own/,
    "/sys/kernel": /kernel's own/,
    "/dev/null": /neither a directory nor a regular file/,
  };
  for (const [source, reason] of Object.entries(why)) {
    await expect(shared(source), source).rejects.toMatchObject({
      code: "ERR_MOUNT_SOURCE",
      why: expect.stringMatching(reason) as string,
      fix: expect.stringMatching(/./) as string,
    });
  }
});
