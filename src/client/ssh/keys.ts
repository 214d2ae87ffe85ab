/** What ssh clients of a VMSAN_DIR have: a key of their own, and the keys of the VMs that they know. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { VmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import { writeFileAtomic } from "../../util/atomic.ts";
import { withLock } from "../../util/lock.ts";
import type { Layout } from "../../util/paths.ts";

const run = promisify(execFile);

/** The key that logs in to guests. */
export interface ClientKey {
  /** Absolute path of the private key, mode 0600. */
  file: string;
  /** Line of a file of authorized keys. */
  publicKey: string;
}

/** The error of a host without OpenSSH's client. */
export function noSsh(program: string, cause: unknown): VmsanError {
  return new VmsanError(
    {
      code: "ERR_SSH_CLIENT",
      message: `Cannot run ${program}`,
      why: messageOf(cause),
      fix: "Install OpenSSH's client (Debian: apt-get install openssh-client). vmsan exec needs none.",
    },
    cause,
  );
}

/** The key of a VMSAN_DIR, made when it is first asked for; of several that make it at once one wins. */
export async function clientKey(layout: Layout): Promise<ClientKey> {
  const dir = join(layout.ssh, "client");
  const file = join(dir, "id_ed25519");
  const read = async (): Promise<ClientKey> => ({
    file,
    publicKey: (await readFile(`${file}.pub`, "utf8")).trim(),
  });
  try {
    return await read();
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
  await mkdir(layout.ssh, { recursive: true, mode: 0o700 });
  const aside = await mkdtemp(join(layout.ssh, ".new-"));
  try {
    const made = join(aside, "id_ed25519");
    await run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "vmsan", "-f", made]);
    // Both files at once: a directory replaces only an empty one.
    await rename(aside, dir);
  } catch (error) {
    await rm(aside, { recursive: true, force: true });
    const code = errnoOf(error);
    if (code !== "ENOTEMPTY" && code !== "EEXIST") throw noSsh("ssh-keygen", error);
  }
  return await read();
}

/** The name by which a VM's key is known: of the VM, whatever it is called and reached by. */
export function knownName(vmId: string): string {
  return `vmsan-${vmId}`;
}

/**
 * Note the keys of VMs in a file of known hosts of the directory.
 * @param keys public keys by the VM's ID
 * @param exists whether a VM that was noted before is still there; undefined for VMs of gateways, which
 *   have a file of their own in which nothing is removed: each key of a gateway sees others
 * @returns the file's absolute path
 */
export async function noteHostKeys(
  layout: Layout,
  keys: ReadonlyMap<string, string>,
  exists: ((vmId: string) => boolean) | undefined,
): Promise<string> {
  await mkdir(layout.ssh, { recursive: true, mode: 0o700 });
  const file = join(layout.ssh, exists === undefined ? "known_hosts.gateways" : "known_hosts");
  await withLock(join(layout.ssh, "known_hosts.lock"), async () => {
    const before = await readOrEmpty(file);
    const lines = new Map<string, string>();
    for (const line of before.split("\n")) {
      const id = /^vmsan-(vm-[0-9a-f]+) /.exec(line)?.[1];
      if (id !== undefined && exists?.(id) !== false) lines.set(id, line);
    }
    for (const [id, key] of keys) lines.set(id, `${knownName(id)} ${key}`);
    const after = [...lines.values()].map((line) => `${line}\n`).join("");
    if (after !== before) await writeFileAtomic(file, after);
  });
  return file;
}

async function readOrEmpty(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return "";
    throw error;
  }
}
