/** Firecracker without root: no jailer, a user and a network namespace of its own. */
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, chownSync, copyFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { standinHost, whyNoStandin } from "./support.ts";

const nobody = 65_534;
const as = ["--reuid", String(nobody), "--regid", String(nobody), "--clear-groups"];

/** Why an unprivileged user cannot do this here; undefined when it can. */
function whyNotRootless(): string | undefined {
  const missing = whyNoStandin();
  if (missing !== undefined) return missing;
  const script = `unshare --user --map-current-user --net true && test -r ${import.meta.filename}`;
  const result = spawnSync("setpriv", [...as, "sh", "-c", script], { encoding: "utf8" });
  return result.status === 0
    ? undefined
    : `an unprivileged user may not make namespaces or not read this checkout ${result.stderr}`;
}

const unusable = whyNotRootless();
if (unusable !== undefined) console.log(`skipped: Firecracker without root: ${unusable}`);
const { dir, built } = standinHost();

test.skipIf(unusable !== undefined)("confined by namespaces and seccomp, and it says so", () => {
  chmodSync(dir, 0o755);
  const home = join(dir, "home");
  mkdirSync(home, { mode: 0o700 });
  for (const name of ["vmlinux", "initramfs.cpio"]) {
    copyFileSync(join(dir, name), join(home, name));
    chownSync(join(home, name), nobody, nobody);
  }
  chownSync(home, nobody, nobody);
  expect(built).toBe(join(dir, "bin"));
  const program = join(import.meta.dirname, "bare.ts");
  const output = execFileSync("setpriv", [...as, process.execPath, program, dir, home], {
    encoding: "utf8",
    env: { PATH: process.env["PATH"] ?? "", HOME: home },
    cwd: home,
    timeout: 120_000,
  });
  expect(JSON.parse(output)).toMatchObject({
    uid: nobody,
    probe: true,
    isolation: {
      mode: "user namespace",
      uid: nobody,
      seccomp: true,
      pidNamespace: false,
      networkNamespace: true,
      notEnforced: [expect.stringContaining("need root and the jailer")],
    },
    seen: { noNewPrivileges: true, seccomp: true, network: true, user: true, links: ["lo"] },
    adopted: true,
    failed: [],
    refused: "ERR_DRIVER_ISOLATION",
    alive: false,
    left: [],
  });
});
