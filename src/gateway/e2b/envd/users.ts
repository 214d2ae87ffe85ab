/** Users and groups of a guest, as its own files name them. */
import { readSmallFile } from "../../../agent/files.ts";
import type { Vm } from "../../../client/vm.ts";
import { E2bError } from "../errors.ts";

/** How long what was read is taken for true, in milliseconds: reading costs two calls of the guest. */
const FRESH_MS = 60_000;
/** The same for whom it does not name, who may have been added since. */
const MISSING_MS = 250;
/** Most bytes of each file that are read. */
const MAX_BYTES = 256 << 10;
/** Most guests, and most different pairs of files, that are kept. */
const MAX_GUESTS = 10_000;
const MAX_NAMES = 100;
/** Of longer files, in characters, nothing is kept: a guest may write what it likes into its own. */
const MAX_KEPT = 16 << 10;

/** A user of a guest. */
export interface GuestUser {
  name: string;
  uid: number;
  gid: number;
  home: string;
  shell: string;
}

/** What a guest's files name. */
interface Names {
  users: GuestUser[];
  groups: Map<number, string>;
}

interface Known {
  names: Names;
  at: number;
}

/** The text of a small file; empty when the image has none. */
async function textOf(vm: Vm, path: string): Promise<string> {
  try {
    return (await readSmallFile(vm.transport, path, MAX_BYTES)).toString("utf8");
  } catch {
    // An image without it has no names.
    return "";
  }
}

/** What two files name. */
function parse(passwd: string, group: string): Names {
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
  };
}

/** Leave no more than so many entries in a map, the oldest first. */
function bound(map: Map<string, unknown>, most: number): void {
  if (map.size > most) map.delete(map.keys().next().value ?? "");
}

/** Names of users and groups, read from guests and kept for a moment. */
export class GuestUsers {
  private readonly known = new Map<string, Promise<Known>>();
  /** By the texts that they were read from: guests of one image have the same. */
  private readonly names = new Map<string, Names>();

  /** Read what the first call about a guest will need, before it comes. */
  warm(vm: Vm): void {
    // Whoever needs it is told of a failure then.
    this.of(vm, FRESH_MS).catch(() => undefined);
  }

  private async of(vm: Vm, freshMs: number): Promise<Known> {
    const before = await this.known.get(vm.id);
    if (before !== undefined && Date.now() - before.at < freshMs) return before;
    const reading = (async (): Promise<Known> => {
      const [passwd, group] = await Promise.all([
        textOf(vm, "/etc/passwd"),
        textOf(vm, "/etc/group"),
      ]);
      const text = `${passwd}\0${group}`;
      if (text.length > MAX_KEPT) {
        this.known.delete(vm.id);
        return { names: parse(passwd, group), at: Date.now() };
      }
      const names = this.names.get(text) ?? parse(passwd, group);
      this.names.set(text, names);
      bound(this.names, MAX_NAMES);
      return { names, at: Date.now() };
    })();
    // Anew, so that the oldest is the first.
    this.known.delete(vm.id);
    this.known.set(vm.id, reading);
    bound(this.known, MAX_GUESTS);
    return await reading;
  }

  /** What is found in the lists as they were, else in those of now. */
  private async find<T>(vm: Vm, look: (names: Names) => T | undefined): Promise<T | undefined> {
    return look((await this.of(vm, FRESH_MS)).names) ?? look((await this.of(vm, MISSING_MS)).names);
  }

  /** A user by name. @throws unauthenticated, as envd does */
  async user(vm: Vm, name: string): Promise<GuestUser> {
    const named = ({ users }: Names): GuestUser | undefined =>
      users.find((user) => user.name === name);
    const found = await this.find(vm, named);
    if (found !== undefined) return found;
    if (name === "root") return { name, uid: 0, gid: 0, home: "/root", shell: "/bin/sh" };
    throw new E2bError("unauthenticated", `invalid username: '${name}'`);
  }

  /** The names of an owner; numbers where the guest has no name for them. */
  async owner(vm: Vm, uid: number, gid: number): Promise<{ owner: string; group: string }> {
    const named = ({ users, groups }: Names): { owner: string; group: string } | undefined => {
      const owner = users.find((user) => user.uid === uid)?.name;
      const group = groups.get(gid);
      return owner === undefined || group === undefined ? undefined : { owner, group };
    };
    const found = await this.find(vm, named);
    if (found !== undefined) return found;
    const { users, groups } = (await this.of(vm, FRESH_MS)).names;
    return {
      owner: users.find((user) => user.uid === uid)?.name ?? String(uid),
      group: groups.get(gid) ?? String(gid),
    };
  }
}
