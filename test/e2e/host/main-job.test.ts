/** The main job as a user meets it: run, create, exec, list, inspect, stop, start, remove. */
import { createHash, randomBytes } from "node:crypto";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { installation } from "../../fixtures/ladder.ts";
import { tool } from "../images.ts";
import { errorCode, vmsan, vmsanJson, vmsanOk } from "../support.ts";

const here = installation("base");

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

test("run pipes 10 MB through a guest, with both outputs and the status", async () => {
  const input = randomBytes(10 << 20);
  const outcome = await vmsan(["run", "base", "--", "sh", "-c", "cat; echo err >&2; exit 7"], {
    dir: here.dir,
    input,
  });
  expect(outcome.stderr).toBe("err\n");
  expect(outcome.code).toBe(7);
  expect(sha256(outcome.stdout)).toBe(sha256(input));
  expect((await vmsanJson<{ count: number }>(["list"], here)).count).toBe(0);
});

describe("a VM that is kept", () => {
  let id = "";
  beforeAll(async () => {
    const reply = await vmsanJson<{ vmId: string; driver: string; accelerator: string }>(
      ["create", "--name", "story", "--memory", "256", "--env", "FROM_VM=1"],
      here,
    );
    id = reply.vmId;
    expect(id).toMatch(/^vm-[0-9a-f]{8}$/);
    expect(reply.driver).toBe("qemu");
  });

  test("exec passes everything behind the VM through", async () => {
    expect(await vmsanOk(["exec", id, "ls", "-la", "/"], here)).toMatch(/ etc$/m);
    await vmsanOk(["exec", "story", "sh", "-c", "printf 'X\\ny\\n' > /tmp/f"], here);
    expect(await vmsanOk(["exec", id, "grep", "-i", "x", "/tmp/f"], here)).toBe("X\n");
    const env = await vmsanOk(["exec", "-e", "A=1", "-e", "B=2", id, "env"], here);
    expect(env).toMatch(/^A=1$/m);
    expect(env).toMatch(/^B=2$/m);
    expect(env).toMatch(/^FROM_VM=1$/m);
    expect(await vmsanOk(["exec", id, "--", "echo", "--json", "--help"], here)).toBe(
      "--json --help\n",
    );
  });

  test("statuses, signals and limits are a shell's", async () => {
    expect((await vmsan(["exec", id, "sh", "-c", "exit 255"], here)).code).toBe(255);
    expect((await vmsan(["exec", id, "sh", "-c", "kill -TERM $$"], here)).code).toBe(143);
    expect((await vmsan(["exec", id, "no-such-command"], here)).code).toBe(127);
    expect((await vmsan(["exec", id, "/etc/passwd"], here)).code).toBe(126);
    expect((await vmsan(["exec", "--timeout", "1s", id, "sleep", "100"], here)).code).toBe(124);
  });

  test("list and inspect say what is true", async () => {
    const list = await vmsanJson<{ vms: { id: string; name: string; status: string }[] }>(
      ["list"],
      here,
    );
    expect(list.vms).toMatchObject([{ id, name: "story", status: "running" }]);
    const view = await vmsanJson(["inspect", "story"], here);
    expect(view).toMatchObject({ id, accelerator: expect.stringMatching(/kvm|tcg/), memMib: 256 });
    expect(String(view["driverReason"])).not.toBe("");
  });

  test("what is written survives stop and start", async () => {
    await vmsanOk(["exec", "--sudo", id, "sh", "-c", "echo kept > /root/note"], here);
    await vmsanOk(["stop", id], here);
    expect((await vmsanJson<{ status: string }>(["inspect", id], here)).status).toBe("stopped");
    expect(await errorCode(["exec", id, "true"], here)).toBe("ERR_VM_NOT_RUNNING");
    await vmsanOk(["start", id], here);
    expect(await vmsanOk(["exec", "--sudo", id, "cat", "/root/note"], here)).toBe("kept\n");
    expect(await errorCode(["start", id], here)).toBe("ERR_VM_NOT_STOPPED");
  });

  test("removal leaves nothing", async () => {
    expect(await errorCode(["rm", id], here)).toBe("ERR_VM_NOT_STOPPED");
    await vmsanOk(["rm", "-f", id], here);
    expect(await errorCode(["exec", id, "true"], here)).toBe("ERR_VM_NOT_FOUND");
  });
});

test("one flat disk: written, stopped cleanly, kept", async () => {
  const { vmId } = await vmsanJson<{ vmId: string }>(
    ["create", "--disk-mode", "flat", "--disk", "2gb", "--memory", "256"],
    here,
  );
  expect(await vmsanOk(["exec", vmId, "sh", "-c", "grep ' / ' /proc/mounts"], here)).toMatch(
    /^\/dev\/\S+ \/ ext4 rw/,
  );
  await vmsanOk(["exec", "--sudo", vmId, "sh", "-c", "echo flat > /note"], here);
  await vmsanOk(["stop", vmId], here);
  // Throws with e2fsck's words when the file system is not clean.
  await tool("e2fsck", "-fn", join(here.dir, "vms", vmId, "root.ext4"));
  await vmsanOk(["start", vmId], here);
  expect(await vmsanOk(["exec", vmId, "cat", "/note"], here)).toBe("flat\n");
  await vmsanOk(["rm", "-f", vmId], here);
});

test("wrong usage is refused before anything is made", async () => {
  const cases: [string[], string][] = [
    [["create", "--cpus", "2"], "ERR_VALIDATION_FLAGS"],
    [["create", "--vcpus", "0x2"], "ERR_VALIDATION_INTEGER"],
    [["create", "--memory", "64"], "ERR_VALIDATION_INTEGER"],
    [["create", "--disk", "ten"], "ERR_VALIDATION_DISK_SIZE"],
    [["create", "--timeout", "banana5m"], "ERR_VALIDATION_DURATION"],
    [["create", "--network-polcy", "deny-all"], "ERR_VALIDATION_FLAGS"],
    [["create", "--network-policy", "deny"], "ERR_VALIDATION_NETWORK_POLICY"],
    [["create", "--publish-port", "70000"], "ERR_VALIDATION_PORT"],
    [["create", "--runtime", "cobol"], "ERR_VALIDATION_RUNTIME"],
    [["create", "--from-image", "x:$(id)"], "ERR_VALIDATION_IMAGE_REF"],
    [["create", "--name", "../x"], "ERR_VALIDATION_FLAGS"],
    [["exec", "..", "true"], "ERR_VALIDATION_FLAGS"],
  ];
  for (const [args, code] of cases) expect(await errorCode(args, here), args.join(" ")).toBe(code);
  expect((await vmsanJson<{ count: number }>(["list"], here)).count).toBe(0);
});
