/** Directories of the host in a real guest: what a file system must do, watchers, ends. */
import { execFileSync } from "node:child_process";
import { watch } from "node:fs";
import {
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { layoutOf } from "../../../src/util/paths.ts";
import { findLeftovers } from "../../../src/vmm/leftovers.ts";
import { buildGo } from "../../firecracker/support.ts";
import { booted, installation } from "../../fixtures/ladder.ts";
import { root } from "../support.ts";

/** Entries of a full directory: far fewer than by hand, where it is 10,000. */
const FEW = { PROBE_ENTRIES: "40" };
const place = { work: "", fixed: "" };
beforeAll(async () => {
  place.work = await mkdtemp(join(tmpdir(), "vmsan-shares-"));
  place.fixed = join(place.work, "fixed");
  await mkdir(place.fixed);
  await writeFile(join(place.fixed, "note"), "from the host\n");
  buildGo(join(root, "test/shares"), ".", join(place.fixed, "probe"));
  await mkdir(join(place.work, "open", "sub"), { recursive: true });
  return () => rm(place.work, { recursive: true, force: true });
});
const made = installation("base");
const box = booted(made, () => ({
  driver: "qemu",
  runtime: "base",
  mounts: [`${join(place.work, "open")}:/tree`, `${place.fixed}:/fixed:ro`],
}));

/** Output of a command in the guest, as root. */
async function guest(...argv: string[]): Promise<string> {
  const { stdout, stderr, exitCode } = await box.vm.exec(argv, {
    user: "root",
    env: [`PROBE_ENTRIES=${FEW.PROBE_ENTRIES}`],
  });
  if (exitCode !== 0) return `${exitCode}: ${stderr.toString()}`;
  return stdout.toString();
}

/** Poll until it is so. */
async function until(what: string, so: () => Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 120_000; Date.now() < end;) {
    if (await so()) return;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error(`not within two minutes: ${what}`);
}

const servers = async (): Promise<number> =>
  (await findLeftovers(join(layoutOf(made.dir).vms, box.id), "shares.json")).length;

test("a share does what the host's file system does, but for devices and others' attributes", async () => {
  const host = execFileSync(join(place.fixed, "probe"), ["conform", join(place.work, "open")], {
    env: { ...process.env, ...FEW },
    encoding: "utf8",
  });
  const inGuest = (await guest("/fixed/probe", "conform", "/tree")).split("\n");
  const other = host.split("\n").filter((line) => !inGuest.includes(line));
  expect(inGuest.length).toBe(host.split("\n").length);
  expect(other.map((line) => line.split("=")[0])).toEqual(
    host.includes("xattr: trusted=ok") ? ["device", "xattr: trusted"] : ["device"],
  );
  expect(await guest("/fixed/probe", "fsx", "/tree", "1", "30")).toBe("fsx 1: 30 operations\n");
}, 600_000);

test("the VM's user is whoever runs vmsan", async () => {
  const open = join(place.work, "open");
  await writeFile(join(open, "mine"), "1", { mode: 0o600 });
  const script =
    "cat /tree/mine && echo 2 >/tree/theirs && stat -c %U /tree/mine /tree/theirs && id -un";
  const { stdout, stderr } = await box.vm.exec(["sh", "-c", script]);
  const [first, second, user] = stdout.toString().slice(1).trim().split("\n");
  expect([first, second, stderr.toString()]).toEqual([user, user, ""]);
  expect((await stat(join(open, "theirs"))).uid).toBe(process.getuid?.());
});

test("a share that is only read can be read", async () => {
  expect(await guest("cat", "/fixed/note")).toBe("from the host\n");
  const tried =
    "echo x >/fixed/note; rm /fixed/note; mkdir /fixed/new; chmod 777 /fixed; mount -o remount,rw /fixed && rm /fixed/note";
  await guest("sh", "-c", tried);
  expect(await readFile(join(place.fixed, "note"), "utf8")).toBe("from the host\n");
  expect((await readdir(place.fixed)).toSorted()).toEqual(["note", "probe"]);
});

test("links do not lead out of it", async () => {
  await writeFile(join(place.work, "secret"), "SECRET");
  await symlink(place.work, join(place.work, "open", "out"));
  const tried =
    "cat /tree/out/secret /tree/../secret /tree/sub/../../secret; ln -s ../secret /tree/l; cat /tree/l; cat /tree/out/../secret; true";
  expect(await guest("sh", "-c", tried)).toBe("");
  expect(await readFile(join(place.work, "secret"), "utf8")).toBe("SECRET");
});

test("watchers see what the other side does", async () => {
  const open = join(place.work, "open");
  await guest("sh", "-c", "/fixed/probe watch /tree 120000 >/tmp/seen 2>&1 & true");
  await until("the watcher is ready", async () =>
    (await guest("cat", "/tmp/seen")).includes("ready"),
  );
  const seen = async (line: string): Promise<void> =>
    await until(line, async () => (await guest("cat", "/tmp/seen")).includes(`${line}\n`));
  await writeFile(join(open, "sub", "new"), "1");
  await seen("create sub/new");
  await writeFile(join(open, "sub", "new"), "22");
  await seen("modify sub/new");
  expect(await guest("cat", "/tree/sub/new")).toBe("22");
  await writeFile(join(open, "aside"), "333");
  await rename(join(open, "aside"), join(open, "sub", "new"));
  await until("the new content", async () => (await guest("cat", "/tree/sub/new")) === "333");
  await rm(join(open, "sub", "new"));
  await seen("delete sub/new");
  const names = new Set<string | null>();
  const watcher = watch(open, (_event, name) => names.add(name));
  await guest("sh", "-c", "echo x >/tree/made-inside");
  await until("the host's watcher", async () => await Promise.resolve(names.has("made-inside")));
  watcher.close();
});

test("a VM that has slept goes on with its open files, and sees what was changed meanwhile", async () => {
  const open = join(place.work, "open");
  await writeFile(join(open, "setting"), "1");
  const waits = "exec 3>>/tree/log; touch /tree/held; until [ -e /tmp/go ]; do sleep 0.2; done";
  await guest("sh", "-c", `(${waits}; echo after >&3) >/dev/null 2>&1 & true`);
  await until("it is open", async () => (await readdir(open)).includes("held"));
  expect(await guest("cat", "/tree/setting")).toBe("1");
  await box.vm.suspend();
  expect(await servers()).toBe(0);
  await writeFile(join(open, "setting"), "22");
  await box.vm.resume();
  await guest("touch", "/tmp/go");
  await until(
    "it is written",
    async () => (await readFile(join(open, "log"), "utf8")) === "after\n",
  );
  await until("the new setting", async () => (await guest("cat", "/tree/setting")) === "22");
});

test("a fork goes on with its open files, and so does the VM that goes back; the host's stay as they are", async () => {
  const open = join(place.work, "open");
  const log = async (): Promise<string[]> =>
    (await readFile(join(open, "forked"), "utf8")).split("\n");
  await writeFile(join(open, "read"), "old");
  const opens = "cd /tree/sub; exec 3>>/tree/forked 4</tree/read; touch /tree/opened";
  const waits = "until [ -e /tmp/on ]; do sleep 0.2; done";
  const goes = 'echo "$(hostname) $(/bin/pwd -P) $(cat <&4 2>&1)" >&3; echo done >/tmp/done';
  await guest("sh", "-c", `(${opens}; ${waits}; ${goes}) >/dev/null 2>&1 & true`);
  await until("it is open", async () => (await readdir(open)).includes("opened"));
  const before = await made.vmsan.snapshots.create(box.id);
  const [fork] = await made.vmsan.fork(box.id, { name: "fork" });
  if (fork === undefined) throw new Error("no fork");
  const inFork = async (script: string): Promise<string> =>
    (await fork.exec(["sh", "-c", script], { user: "root" })).stdout.toString();
  await inFork("touch /tmp/on");
  await until("the fork has gone on", async () => (await log()).includes("fork /tree/sub old"));
  expect(await guest("sh", "-c", "ls /tmp/done 2>/dev/null; touch /tmp/since; true")).toBe("");
  await inFork("echo of the fork >/tree/of-fork");
  await until(
    "the fork's file",
    async () => (await guest("cat", "/tree/of-fork")) === "of the fork\n",
  );
  await fork.remove();
  // Another file, in the place of the one that is open in the snapshot.
  await rm(join(open, "read"));
  await writeFile(join(open, "read"), "new");
  await box.vm.restore(before.id);
  expect(await guest("ls", "/tmp")).not.toContain("since");
  expect(await guest("cat", "/tree/of-fork", "/tree/read")).toBe("of the fork\nnew");
  await guest("touch", "/tmp/on");
  await until("the VM has gone on", async () =>
    (await log()).some((line) => / \/tree\/sub .*Stale file handle/.test(line)),
  );
  const saved = made.vmsan.snapshots.export(before.id, join(place.work, "archive"));
  await expect(saved).rejects.toMatchObject({ code: "ERR_SNAPSHOT_SHARES" });
}, 600_000);

test("its server is started again when it is killed, and ends with the VM", async () => {
  const [server] = await findLeftovers(join(layoutOf(made.dir).vms, box.id), "shares.json");
  process.kill(server?.pid ?? 0, "SIGKILL");
  await until("the share is back", async () => (await guest("cat", "/tree/made-inside")) === "x\n");
  await box.vm.stop();
  await until("no server", async () => (await servers()) === 0);
  await box.vm.start();
  expect(await guest("cat", "/tree/made-inside")).toBe("x\n");
  const { pid } = await box.vm.refresh();
  process.kill(pid ?? 0, "SIGKILL");
  await until("no server", async () => (await servers()) === 0);
});
