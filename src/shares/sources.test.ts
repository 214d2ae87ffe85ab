import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { checkSources } from "./sources.ts";

let dir = "";
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "vmsan-sources-"));
  await mkdir(join(dir, "own", "run"), { recursive: true });
  await mkdir(join(dir, "own-not"));
  await mkdir(join(dir, "real", "sub"), { recursive: true });
  await writeFile(join(dir, "file"), "");
  await symlink(join(dir, "real"), join(dir, "link"));
  await symlink("circle", join(dir, "circle"));
});
afterAll(async () => await rm(dir, { recursive: true, force: true }));

const shared = (...sources: string[]): Promise<void> =>
  checkSources(
    sources.map((source) => ({ kind: "bind", source, target: "/work", readonly: false })),
    join(dir, "own"),
  );

test("directories may be shared, also one that holds vmsan's own", async () => {
  await shared(join(dir, "real"), join(dir, "real", "sub"), join(dir, "own-not"), dir);
});

test("what may not be shared is refused with what to do", async () => {
  const why: Record<string, RegExp> = {
    [join(dir, "none")]: /no such directory/i,
    [join(dir, "file")]: /is a file/,
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
    "/dev/null": /no directory/,
  };
  for (const [source, reason] of Object.entries(why)) {
    await expect(shared(source), source).rejects.toMatchObject({
      code: "ERR_MOUNT_SOURCE",
      why: expect.stringMatching(reason) as string,
      fix: expect.stringMatching(/./) as string,
    });
  }
});
