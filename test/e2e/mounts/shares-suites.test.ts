/**
 * A shared directory under suites that others made for POSIX file systems (pjdfstest and fsx, from
 * crates.io), a repository of 10,000 files, and 1 GB each way. Only with VMSAN_TEST_SUITES=1: it compiles
 * them once, which takes cargo (Rust 1.85 or newer), and many minutes where the guest is emulated.
 */
import { createHash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { copyFile, mkdir, open, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { beforeAll, describe, expect, test } from "vitest";
import { run, runOk } from "../../../src/util/run.ts";
import { kept } from "../../fixtures/kept.ts";
import { booted, installation, temporary } from "../../fixtures/ladder.ts";

const wanted = process.env["VMSAN_TEST_SUITES"] === "1";
if (!wanted) {
  process.stderr.write(
    "shares-suites: left out, since they are compiled and take many minutes; VMSAN_TEST_SUITES=1 runs them\n",
  );
}
const LIMIT_MS = 3_600_000;
const SUITES = { pjdfstest: "0.2.2", fsx: "0.3.2" };
const FILES = 10_000;
const GIB = 2 ** 30;

const PJDFSTEST = `[features]
posix_fallocate = {}
rename_ctime = {}
utimensat = {}
utime_now = {}
[settings]
naptime = 0.01
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"]]
`;
const FSX = `flen = 262144
[opsize]
min = 1
max = 65536
[weights]
close_open = 1
invalidate = 1
truncate = 3
fsync = 1
fdatasync = 1
read = 10
write = 10
mapread = 5
mapwrite = 5
punch_hole = 2
posix_fallocate = 1
copy_file_range = 2
sendfile = 2
`;

/** What pjdfstest says of each of its cases, by name. */
function verdicts(output: string): Map<string, string> {
  // oxlint-disable-next-line no-control-regex -- it colours them
  const plain = output.replaceAll(/\u001b\[[0-9;]*m/g, "");
  const lines = plain.matchAll(/^([a-z_]+(?:::\w+)+)\s+(ok|FAILED|skipped)$/gm);
  return new Map([...lines].map(([, name = "", verdict = ""]) => [name, verdict]));
}

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}

describe.runIf(wanted)("suites for file systems", () => {
  const work = temporary();
  const made = installation("base");
  const at = (...names: string[]): string => join(work.path, ...names);
  beforeAll(async () => {
    for (const name of ["open", "host", "tools"]) await mkdir(at(name));
    for (const [name, version] of Object.entries(SUITES)) {
      const place = await kept(`cargo/${name}-${version}`, async (dir) => {
        const args = ["install", name, "--version", version, "--root", dir, "--locked"];
        await runOk("cargo", args, "ERR_TEST_TOOL", { timeoutMs: LIMIT_MS });
      });
      await copyFile(join(place, "bin", name), at("tools", name));
    }
    await writeFile(at("tools", "pjdfstest.toml"), PJDFSTEST);
    await writeFile(at("tools", "fsx.toml"), FSX);
  }, LIMIT_MS);
  // Whoever runs vmsan is root there: numbers of users are the same on both sides.
  const box = booted(made, () => ({
    driver: "qemu",
    runtime: "base",
    user: "root",
    mounts: [`${at("open")}:/tree`, `${at("tools")}:/tools:ro`],
  }));
  const guest = async (script: string): Promise<string> => {
    const { stdout, stderr, exitCode } = await box.vm.exec(["sh", "-c", script]);
    expect(exitCode, `${script}: ${stderr.toString()}`).toBe(0);
    return stdout.toString();
  };

  test(
    "pjdfstest: what the host's file system passes, but for devices",
    async () => {
      const args = ["-c", at("tools", "pjdfstest.toml"), "-p", at("host")];
      const host = verdicts((await run(at("tools", "pjdfstest"), args)).stdout);
      const share = verdicts(
        await guest("/tools/pjdfstest -c /tools/pjdfstest.toml -p /tree || true"),
      );
      expect(share.size).toBe(host.size);
      const other = [...share].filter(
        ([name, verdict]) => verdict === "FAILED" && host.get(name) === "ok",
      );
      // Nobody makes a device on a share.
      const devices = /::(block|char)$/;
      expect(other.map(([name]) => name).filter((name) => !devices.test(name))).toEqual([]);
      const counts = { passed: 0, devices: other.length };
      counts.passed = [...share.values()].filter((verdict) => verdict === "ok").length;
      process.stderr.write(`pjdfstest: ${JSON.stringify(counts)}\n`);
      expect(await readdir(at("open"))).toEqual([]);
    },
    LIMIT_MS,
  );

  test(
    "fsx: 10,000 operations of all kinds",
    async () => {
      await guest(
        "for seed in 1 2 3 4 5 6 7 8 9 10; do /tools/fsx -f /tools/fsx.toml -N 1000 -S $seed /tree/fsx || exit 1; done",
      );
    },
    LIMIT_MS,
  );

  test(
    "a repository of 10,000 files is unpacked, committed, changed on the host and told apart",
    async () => {
      const tree = at("repository");
      for (let i = 0; i < FILES; i += 1) {
        const dir = join(tree, "node_modules", `package-${Math.floor(i / 50)}`, "lib");
        if (i % 50 === 0) await mkdir(dir, { recursive: true });
        await writeFile(join(dir, `module-${i}.js`), `export const n${i} = ${i};\n`.repeat(20));
      }
      await runOk("tar", ["-C", tree, "-cf", at("tools", "tree.tar"), "."], "ERR_TEST_TOOL");
      const git = "git -c user.name=a -c user.email=a@b -c gc.auto=0";
      await guest(
        `mkdir /tree/r && cd /tree/r && tar xf /tools/tree.tar && git init -q && git add -A && ${git} commit -qm all`,
      );
      expect(await guest("cd /tree/r && git status --porcelain")).toBe("");
      const changed = join("node_modules", "package-7", "lib", "module-350.js");
      await writeFile(at("open", "r", changed), "// changed on the host\n");
      expect(await guest("cd /tree/r && git status --porcelain")).toBe(` M ${changed}\n`);
      await guest("rm -rf /tree/r/node_modules");
      expect(await readdir(at("open", "r"))).toEqual([".git"]);
    },
    LIMIT_MS,
  );

  test(
    "1 GB is the same on both sides, written by either",
    async () => {
      const file = await open(at("open", "large"), "w");
      const piece = randomBytes(2 ** 20);
      for (let i = 0; i < GIB / piece.length; i += 1) {
        piece.writeUInt32LE(i);
        await file.write(piece);
      }
      await file.close();
      const hash = await sha256(at("open", "large"));
      expect((await guest("sha256sum </tree/large")).slice(0, 64)).toBe(hash);
      await guest("cp /tree/large /tree/copy && sync /tree/copy");
      await guest("dd if=/tree/large of=/tree/piecewise bs=64k status=none");
      expect(await sha256(at("open", "copy"))).toBe(hash);
      expect(await sha256(at("open", "piecewise"))).toBe(hash);
    },
    LIMIT_MS,
  );
});
