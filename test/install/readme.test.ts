/**
 * The newcomer's path: what README.md says, block by block, as an ordinary user with a home of
 * their own. The kernel and the base image are taken from what the tests have prepared, as from
 * an earlier setup.
 */
import { cp, mkdir, mkdtemp, readFile, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { run, runOk } from "../../src/util/run.ts";
import { buildPackage } from "./package.ts";

const root = resolve(import.meta.dirname, "../..");
const prepared = process.env["VMSAN_DIR"] ?? join(root, ".cache/vmsan");
const asRoot = process.getuid?.() === 0;
/** Root plays somebody who is not: the installer then stays below the home. */
const uid = asRoot ? 65534 : (process.getuid?.() ?? 0);

let dir: string;
let home: string;
let blocks: { language: string; text: string }[];

/** Fenced blocks of a Markdown text. */
function codeBlocks(markdown: string): { language: string; text: string }[] {
  return [...markdown.matchAll(/^```(\w*)\n(.*?)^```$/gms)].map((match) => ({
    language: match[1] ?? "",
    text: match[2] ?? "",
  }));
}

/** The block that has these words. */
function block(words: string): string {
  const found = blocks.find(({ text }) => text.includes(words));
  if (found === undefined) throw new Error(`README.md has no block with ${words}`);
  return found.text;
}

/** Run a program as that user, in their home. */
async function as(argv: readonly string[]) {
  const who = ["--reuid", `${uid}`, "--regid", `${uid}`, "--clear-groups"];
  const env = ["env", "-C", home, ...argv];
  const [file = "", ...args] = asRoot ? ["setpriv", ...who, ...env] : env;
  return await run(file, args, {
    timeoutMs: 200_000,
    env: {
      PATH: `${home}/.local/bin:${join(root, "node_modules/.bin")}:${process.env["PATH"] ?? ""}`,
      HOME: home,
      LANG: "C.UTF-8",
      TMPDIR: join(home, "tmp"),
    },
  });
}

/** Everything in the home. */
const inHome = async (): Promise<string[]> => (await readdir(home)).sort();

/** Processes that have the home in their environment. */
async function processes(): Promise<string[]> {
  const found: string[] = [];
  for (const pid of await readdir("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    const text = await readFile(`/proc/${pid}/environ`, "latin1").catch(() => ""); // gone, not ours
    if (text.includes(`HOME=${home}\0`)) found.push(pid);
  }
  return found;
}

beforeAll(async () => {
  blocks = codeBlocks(await readFile(join(root, "README.md"), "utf8"));
  dir = await mkdtemp(join(tmpdir(), "vmsan-readme-"));
  await runOk("chmod", ["755", dir], "ERR_TEST");
  home = join(dir, "h");
  await mkdir(join(home, "tmp"), { recursive: true });
  const file = await buildPackage(dir);
  await cp(file, join(home, basename(file)));
  await cp(join(root, "install.sh"), join(home, "install.sh"));
  await mkdir(join(home, ".vmsan"));
  for (const name of ["kernels", "runtimes"]) {
    await runOk("cp", ["-a", join(prepared, name), join(home, ".vmsan")], "ERR_TEST");
  }
  await runOk("chown", ["-R", `${uid}:${uid}`, home], "ERR_TEST");
});
afterAll(async () => {
  await rm(dir, { recursive: true, force: true });
});

test("every block is one that this file knows", () => {
  const known = [
    "vmsan run node:22", // needs the public registry: not run here
    "sh install.sh",
    "vmsan create --name box",
    'import { Vmsan } from "vmsan"',
    "npm run demo", // runs what this test is a part of; the lines are checked against package.json
  ];
  for (const { text } of blocks) {
    expect(
      known.filter((words) => text.includes(words)),
      text,
    ).toHaveLength(1);
  }
  expect(blocks).toHaveLength(known.length);
});

test("the commands for developers are there", async () => {
  const { scripts } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as {
    scripts: Record<string, string>;
  };
  const names = [...block("npm run demo").matchAll(/^npm (?:run )?(\w+)/gm)].map(
    ([, name]) => name,
  );
  expect(names).toEqual(["demo", "test"]);
  for (const name of names) expect(Object.keys(scripts)).toContain(name);
});

test("install, first steps, the SDK, uninstall", async () => {
  const before = await inHome();
  const installed = await as(["sh", "-ec", block("sh install.sh")]);
  expect(installed.code, installed.stdout + installed.stderr).toBe(0);

  const steps = await as(["sh", "-ec", block("vmsan create --name box")]);
  expect(steps.code, steps.stdout + steps.stderr).toBe(0);
  expect(steps.stdout).toMatch(/^Linux /m);
  expect(steps.stdout).toMatch(/^hello$/m);
  expect(steps.stdout).toMatch(/\bbox\b/);

  await mkdir(join(home, "node_modules"));
  await symlink(join(home, ".local/lib/vmsan"), join(home, "node_modules/vmsan"));
  await writeFile(join(home, "first.mts"), block('import { Vmsan } from "vmsan"'));
  const program = await as(["node", "first.mts"]);
  expect(program.code, program.stdout + program.stderr).toBe(0);
  expect(program.stdout).toMatch(/^\d+\.\d+/);
  await rm(join(home, "first.mts"));
  await rm(join(home, "node_modules"), { recursive: true });

  const uninstalled = await as(["sh", "install.sh", "--uninstall"]);
  expect(uninstalled.code, uninstalled.stderr).toBe(0);
  expect(uninstalled.stderr).not.toContain("warning");
  // What the test brought along as .vmsan is setup's, and goes with it.
  expect(await inHome()).toEqual(before.filter((name) => name !== ".vmsan"));
  expect(await readdir(join(home, "tmp"))).toEqual([]);
  for (let waited = 0; waited < 5000 && (await processes()).length > 0; waited += 50)
    await sleep(50);
  expect(await processes()).toEqual([]);
});

/** What of a host its programs can see: links, rules, names, settings, /run. */
const hostState = `{ ip -o link; ip rule; ip route show table all; ip netns; nft list ruleset
  grep -r . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv6/conf/*/forwarding
  find /run -mindepth 1; } 2>&1 | sed 's/qlen [0-9]*//'`;

test.skipIf(!asRoot)(
  "root's uninstall with a running VM leaves the host as it was (skipped without root)",
  async () => {
    const box = join(dir, "r");
    await mkdir(join(box, ".vmsan"), { recursive: true });
    for (const name of ["kernels", "runtimes"]) {
      await runOk("cp", ["-a", join(prepared, name), join(box, ".vmsan")], "ERR_TEST");
    }
    const file = (await readdir(dir)).find((name) => name.endsWith(".tgz")) ?? "";
    // Its own network, /run and process numbers: the test's host is not touched.
    const script = `
      mount -t tmpfs x /run; mkdir /run/netns # iproute2's own, which it never removes
      ip link set lo up
      ip link add out0 type veth peer name out1
      for link in out0 out1; do ip link set $link addrgenmode none; done; ip link set out1 up
      ip addr add 192.0.2.2/24 dev out0; ip link set out0 up
      ip route add default via 192.0.2.1
      state() { ${hostState}; }
      state >before
      sh ${join(root, "install.sh")} --prefix ${box}/p --package ${join(dir, file)} --no-setup
      p/bin/vmsan create --name left --memory 256m >/dev/null
      state >during
      sh ${join(root, "install.sh")} --prefix ${box}/p --uninstall
      state >after
      ps -e -o args= | grep -v '^\\(ps\\|grep\\|sh\\|/bin/sh\\) ' >processes || true
      diff before after`;
    const argv = ["--net", "--mount", "--propagation", "private", "--pid", "--fork"];
    const result = await run("unshare", [...argv, "--mount-proc", "sh", "-ec", script], {
      cwd: box,
      timeoutMs: 200_000,
      env: {
        PATH: `${join(root, "node_modules/.bin")}:${process.env["PATH"] ?? ""}`,
        HOME: box,
      },
    });
    expect(result.code, result.stdout + result.stderr).toBe(0);
    expect(result.stderr).not.toContain("warning");
    const read = (name: string): Promise<string> => readFile(join(box, name), "utf8");
    // It can fail: while the VM was there, there was more to see.
    expect(await read("during")).toMatch(/table inet vmsan/);
    expect(await read("processes")).toBe("");
    expect((await readdir(box)).sort()).toEqual(["after", "before", "during", "processes"]);
  },
);
