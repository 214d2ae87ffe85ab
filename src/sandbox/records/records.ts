/** What is known of each VM, on disk: one directory a VM, one JSON document in it. */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { VmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import type { VmRecord } from "../../model/vm.ts";
import { parseVmRecord } from "../../schema/state.ts";
import { ASIDE, writeFileAtomic } from "../../util/atomic.ts";
import { isVmId } from "../../util/names.ts";
import { dropSecretFile } from "./secrets.ts";

/** A directory whose document cannot be read; shown, never deleted by itself. */
export interface BrokenRecord {
  id: string;
  why: string;
}

/** The directory of VMs. Documents are replaced as a whole, so a torn write cannot happen. */
export class VmRecords {
  /** Absolute path of the directory of VM directories. */
  readonly root: string;

  constructor(root: string) {
    this.root = root;
  }

  /** The VM's own directory. */
  dir(id: string): string {
    if (!isVmId(id)) throw new Error(`not a VM ID: ${id}`);
    return join(this.root, id);
  }

  /** Make a VM's directory; false when the ID is taken. */
  async claim(id: string): Promise<boolean> {
    await mkdir(this.root, { recursive: true, mode: 0o700 });
    try {
      await mkdir(this.dir(id), { mode: 0o700 });
      return true;
    } catch (error) {
      if (errnoOf(error) === "EEXIST") return false;
      throw error;
    }
  }

  /**
   * Replace a VM's document. The next daemon finds what is said here in any case. After a power cut nothing runs of a
   * VM, and one that is still being made or goes with its command is not worth waiting for the disk each time.
   */
  async save(record: VmRecord): Promise<void> {
    const path = join(this.dir(record.id), "vm.json");
    const passing = record.status === "creating" || record.ephemeral;
    const synced = !passing || !existsSync(path);
    await writeFileAtomic(path, `${JSON.stringify(record, null, 2)}\n`, 0o600, synced);
  }

  /**
   * All VMs, and the directories that cannot be read. For a daemon's start, when nobody else writes: what a
   * killed one was writing aside is removed.
   */
  async load(): Promise<{ records: VmRecord[]; broken: BrokenRecord[]; empty: string[] }> {
    const records: VmRecord[] = [];
    const broken: BrokenRecord[] = [];
    const empty: string[] = [];
    let names: string[];
    try {
      names = await readdir(this.root);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return { records, broken, empty };
      throw error;
    }
    for (const id of names.filter(isVmId)) {
      try {
        for (const name of await readdir(this.dir(id))) {
          if (name.startsWith(ASIDE)) await rm(join(this.dir(id), name), { force: true });
        }
        records.push(
          parseVmRecord(JSON.parse(await readFile(join(this.root, id, "vm.json"), "utf8"))),
        );
      } catch (error) {
        // No document yet: its maker was killed between two steps, and nothing runs from it.
        if (errnoOf(error) === "ENOENT") empty.push(id);
        else broken.push({ id, why: messageOf(error) });
      }
    }
    return { records, broken, empty };
  }

  /** Remove a VM's directory with all in it. */
  async remove(id: string): Promise<void> {
    // Tried again: what ends just now may still write a last file.
    await rm(this.dir(id), { recursive: true, force: true, maxRetries: 5 });
  }

  /** Forget a VM's secrets, which it shares with the VM that it was copied from. */
  async dropSecrets(id: string): Promise<void> {
    await rm(join(this.dir(id), "token"), { force: true });
    await rm(join(this.dir(id), "ssh-host-key"), { force: true });
    await dropSecretFile(this.dir(id));
  }

  /** The VM's host key for ssh, a seed of Ed25519; made on first use, readable by the owner alone. */
  async sshHostKey(id: string): Promise<Buffer> {
    return Buffer.from(await this.secret(id, "ssh-host-key", 32), "hex");
  }

  /** The VM's channel token, 32 hex digits; made on first use, readable by the owner alone. */
  async token(id: string): Promise<string> {
    return await this.secret(id, "token", 16);
  }

  /** Random bytes of a VM's own, kept in a file, as hex digits. */
  private async secret(id: string, name: string, size: number): Promise<string> {
    const path = join(this.dir(id), name);
    try {
      const secret = (await readFile(path, "utf8")).trim();
      if (secret.length === 2 * size && /^[0-9a-f]+$/.test(secret)) return secret;
      throw new VmsanError({
        code: "ERR_VM_STATE",
        message: `Cannot read the ${name} of ${id}`,
        why: `${path} does not hold ${2 * size} hex digits.`,
        fix: `Remove the VM: vmsan rm -f ${id}`,
      });
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
    }
    const secret = randomBytes(size).toString("hex");
    await writeFileAtomic(path, `${secret}\n`);
    return secret;
  }
}
