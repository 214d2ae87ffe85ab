/** OpenSSH's client and the server in a guest, which is a process of this host here. */
import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { fakeDaemon } from "./exec-cases/fake-daemon.ts";
import type { FakeDaemon } from "./exec-cases/fake-daemon.ts";

const vmsanBin = join(import.meta.dirname, "../bin/vmsan");
let daemon: FakeDaemon;
let config = "";
beforeAll(async () => {
  daemon = await fakeDaemon();
  config = join(daemon.dir, "config");
  const { stdout } = await call(vmsanBin, ["ssh-config", "vm"]);
  await writeFile(config, stdout);
});
afterAll(async () => await daemon.close());

interface Called {
  code: number;
  stdout: Buffer;
  stderr: string;
}

/** Run a program to its end. */
async function call(
  program: string,
  args: string[],
  input: Uint8Array = Buffer.alloc(0),
): Promise<Called> {
  const env = { ...process.env, VMSAN_DIR: daemon.dir, VMSAN_URL: "" };
  return await new Promise((resolve) => {
    const child = execFile(
      program,
      args,
      { env, encoding: "buffer", maxBuffer: 1 << 28 },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === "number" ? error.code : 255;
        resolve({ code, stdout, stderr: stderr.toString() });
      },
    );
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(input);
  });
}

const ssh = async (args: string[], input?: Uint8Array): Promise<Called> =>
  await call("ssh", ["-F", config, ...args], input);

test("a command with its status, by the configuration and by vmsan ssh", async () => {
  const host = "vm-0123abcd.vmsan";
  const { code, stdout, stderr } = await ssh(
    [host, "cat; echo complaint >&2; exit 7"],
    Buffer.from("typed"),
  );
  expect({ code, out: stdout.toString(), stderr }).toEqual({
    code: 7,
    out: "typed",
    stderr: "complaint\n",
  });
  const again = await call(vmsanBin, ["ssh", "vm", "echo", "$USER;", "exit", "9"]);
  expect(again).toMatchObject({ code: 9, stderr: "" });
  expect(again.stdout.toString()).toBe("root\n");
  const other = await call(vmsanBin, ["ssh", "nobody-of-that-name@vm", "id"]);
  expect(other.code).toBe(255);
  expect(other.stderr).toContain("/etc/passwd does not list it");
});

test("connections that break below cost no byte", async () => {
  const bytes = randomBytes(24 << 20);
  let cuts = 0;
  const cutting = setInterval(() => (cuts += daemon.cut()), 40);
  try {
    const { code, stdout } = await ssh(["vm-0123abcd.vmsan", "cat"], bytes);
    expect(code).toBe(0);
    const digest = (of: Uint8Array): string => createHash("sha256").update(of).digest("hex");
    expect(digest(stdout)).toBe(digest(bytes));
    expect(cuts).toBeGreaterThan(2);
  } finally {
    clearInterval(cutting);
  }
});

test("another host key is refused without a question, as is another client's key", async () => {
  const known = join(daemon.dir, "ssh/known_hosts");
  const before = await readFile(known, "utf8");
  const another = `ssh-ed25519 ${before.split(" ")[2]?.trim().replace(/.{4}$/, "AAAA")}`;
  await writeFile(known, `vmsan-vm-0123abcd ${another}\n`);
  const refused = await ssh(["vm-0123abcd.vmsan", "true"]);
  await writeFile(known, before);
  expect(refused.code).toBe(255);
  expect(refused.stderr).toContain("Host key verification failed");

  const key = join(daemon.dir, "other");
  await call("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", key]);
  await chmod(key, 0o600);
  const own = (await readFile(config, "utf8")).replace(/IdentityFile .*/, `IdentityFile ${key}`);
  await writeFile(`${config}.other`, own);
  const unknown = await call("ssh", ["-F", `${config}.other`, "vm-0123abcd.vmsan", "true"]);
  expect(unknown.code).toBe(255);
  expect(unknown.stderr).toContain("Permission denied (publickey)");
});
