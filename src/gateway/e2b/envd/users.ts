/** Users and groups of a guest, as its own files name them. */
import type { Vm } from "../../../client/vm.ts";
import { E2bError } from "../errors.ts";

/** How long what was read is taken for true, in milliseconds: reading costs two streams, much more than most calls. */
const FRESH_MS = 60_000;
/** The same for whom it does not name, who may have been added since. */
const MISSING_MS = 250;
/** Most bytes of each file that are read. */
const MAX_BYTES = 1 << 20;

/** A user of a guest. */
export interface GuestUser {
  name: string;
  uid: number;
  gid: number;
  home: string;
  shell: string;
}

interface Known {
  users: GuestUser[];
  groups: Map<number, string>;
  at: number;
}

/** The text of a small file; empty when the image has none. */
async function textOf(vm: Vm, path: string): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    await vm.readFile(
      path,
      (bytes) => {
        size += bytes.length;
        if (size <= MAX_BYTES) chunks.push(Buffer.from(bytes));
      },
      { user: "0" },
    );
  } catch {
    // An image without it has no names.
    return "";
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** Names of users and groups, read from guests and kept for a moment. */
export class GuestUsers {
  private readonly known = new Map<string, Promise<Known>>();

  private async of(vm: Vm, freshMs: number): Promise<Known> {
    const before = await this.known.get(vm.id);
    if (before !== undefined && Date.now() - before.at < freshMs) return before;
    const reading = (async (): Promise<Known> => {
      const [passwd, group] = await Promise.all([
        textOf(vm, "/etc/passwd"),
        textOf(vm, "/etc/group"),
      ]);
      const rows = (text: string): string[][] => text.split("\n").map((line) => line.split(":"));
      return {
        users: rows(passwd)
          .filter((row) => row.length >= 7)
          .map(([name = "", , uid, gid, , home = "/", shell = ""]) => ({
            name,
            uid: Number(uid),
            gid: Number(gid),
            home: home === "" ? "/" : home,
            shell,
          })),
        groups: new Map(
          rows(group)
            .filter((row) => row.length >= 3)
            .map(([name = "", , gid]) => [Number(gid), name]),
        ),
        at: Date.now(),
      };
    })();
    this.known.set(vm.id, reading);
    if (this.known.size > 1000) this.known.delete(this.known.keys().next().value ?? "");
    return await reading;
  }

  /** What is found in the lists as they were, else in those of now. */
  private async find<T>(vm: Vm, look: (known: Known) => T | undefined): Promise<T | undefined> {
    return look(await this.of(vm, FRESH_MS)) ?? look(await this.of(vm, MISSING_MS));
  }

  /** A user by name. @throws unauthenticated, as envd does */
  async user(vm: Vm, name: string): Promise<GuestUser> {
    const named = ({ users }: Known): GuestUser | undefined =>
      users.find((user) => user.name === name);
    const found = await this.find(vm, named);
    if (found !== undefined) return found;
    if (name === "root") return { name, uid: 0, gid: 0, home: "/root", shell: "/bin/sh" };
    throw new E2bError("unauthenticated", `invalid username: '${name}'`);
  }

  /** The names of an owner; numbers where the guest has no name for them. */
  async owner(vm: Vm, uid: number, gid: number): Promise<{ owner: string; group: string }> {
    const named = ({ users, groups }: Known): { owner: string; group: string } | undefined => {
      const owner = users.find((user) => user.uid === uid)?.name;
      const group = groups.get(gid);
      return owner === undefined || group === undefined ? undefined : { owner, group };
    };
    const found = await this.find(vm, named);
    if (found !== undefined) return found;
    const { users, groups } = await this.of(vm, FRESH_MS);
    return {
      owner: users.find((user) => user.uid === uid)?.name ?? String(uid),
      group: groups.get(gid) ?? String(gid),
    };
  }
}
