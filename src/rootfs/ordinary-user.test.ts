/** An ordinary user builds what only root could extract. */
import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { makeTar, storeLayer } from "../layers/testing.ts";
import { expectClean, readTree } from "./contract.ts";

const NOBODY = 65_534;
const root = process.getuid?.() === 0;
/** Options of child processes that make them nobody's, without further groups. */
const asNobody = root ? { uid: NOBODY, gid: NOBODY } : {};
const direct = new URL("./direct.ts", import.meta.url);
const readable =
  spawnSync(
    process.execPath,
    ["-e", `require("fs").readFileSync(${JSON.stringify(direct.pathname)})`],
    {
      cwd: "/",
      ...asNobody,
    },
  ).status === 0;
if (!readable) console.warn("this checkout is not readable to others: no build as nobody");

test.skipIf(!readable)("owners, setuid, capabilities and devices without privileges", async () => {
  const dir = mkdtempSync(join(tmpdir(), "vmsan-nobody-"));
  try {
    chmodSync(dir, 0o755);
    const capability = Buffer.from("0100000200200000000000000000000000000000", "hex");
    const layers = [
      storeLayer(
        dir,
        makeTar([
          { path: "su", mode: 0o4755, data: "s" },
          { path: "theirs", mode: 0o600, uid: 1000, gid: 100_000, data: "t" },
          { path: "ping", data: "p", xattrs: new Map([["security.capability", capability]]) },
          { path: "null", kind: "char", major: 1, minor: 3, mode: 0o666 },
          { path: "sda", kind: "block", major: 8, minor: 0, mode: 0o660, gid: 6 },
          { path: "closed/", mode: 0 },
          { path: "closed/in", mode: 0, data: "c" },
        ]),
        "gzip",
      ),
    ];
    if (root) chownSync(dir, NOBODY, NOBODY);
    const image = join(dir, "disk.ext4");
    const script = `
      const { directBuilder } = await import(${JSON.stringify(direct.href)});
      const summary = await directBuilder.build(${JSON.stringify(layers)}, ${JSON.stringify(image)},
        { sizeBytes: 2 ** 24, journal: false }, { signal: new AbortController().signal });
      console.log(JSON.stringify({ uid: process.getuid(), groups: process.getgroups(), summary }));`;
    const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
      cwd: "/",
      encoding: "utf8",
      ...asNobody,
    });
    const said = (stdout === "" ? { stderr } : JSON.parse(stdout)) as Record<string, unknown>;
    expect(said).toMatchObject({
      ...(root ? { uid: NOBODY } : {}),
      summary: { warnings: [], entries: 7 },
    });
    await expectClean(image);
    const tree = readTree(image);
    expect(tree.get("su")).toMatchObject({ mode: 0o4755, uid: 0, gid: 0 });
    expect(tree.get("theirs")).toMatchObject({ mode: 0o600, uid: 1000, gid: 100_000 });
    expect(tree.get("ping")?.xattrs).toEqual({ "security.capability": capability.toString("hex") });
    expect(tree.get("null")).toMatchObject({ kind: "char", major: 1, minor: 3, mode: 0o666 });
    expect(tree.get("sda")).toMatchObject({ kind: "block", major: 8, minor: 0, gid: 6 });
    expect(tree.get("closed")).toMatchObject({ mode: 0 });
    expect(tree.get("closed/in")).toMatchObject({ mode: 0, size: 1 });
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});
