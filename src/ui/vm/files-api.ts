/** Files of a guest by the agent's calls (protocol/README.md, section 6). */
import { ApiError, ask, call, part } from "../api/client.ts";
import { currentKey } from "../api/key.ts";

/** What is at a path. */
export interface FileEntry {
  /** Text; bytes that are no UTF-8 are replaced, and such files cannot be reached by it. */
  name: string;
  path: string;
  type: "file" | "dir" | "symlink" | "fifo" | "socket" | "char" | "block";
  size: number;
  mode: number;
  uid: number;
  gid: number;
  mtimeMs: number;
  target?: string;
  /** Whether the name is whole. */
  exact: boolean;
}

function fromBase64(text: string): { text: string; exact: boolean } {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  try {
    return { text: new TextDecoder("utf-8", { fatal: true }).decode(bytes), exact: true };
  } catch {
    // Not UTF-8: shown as well as it can be.
    return { text: new TextDecoder().decode(bytes), exact: false };
  }
}

function entryOf(given: Record<string, unknown>): FileEntry {
  const word = (name: string): string => {
    const value = given[name];
    return typeof value === "string" ? value : "";
  };
  const { text, exact } = fromBase64(word("name"));
  const target = given["target"];
  return {
    name: text,
    path: word("path"),
    type: given["type"] as FileEntry["type"],
    size: Number(given["size"] ?? 0),
    mode: Number(given["mode"] ?? 0) & 0o7777,
    uid: Number(given["uid"] ?? 0),
    gid: Number(given["gid"] ?? 0),
    mtimeMs: Number(word("mtimeNs").slice(0, -6)),
    ...(typeof target === "string" ? { target: fromBase64(target).text } : {}),
    exact,
  };
}

/** Calls about files of one VM, with a user's rights. */
export class GuestFiles {
  private readonly vm: string;
  private readonly user: string;

  /** @param user empty: root */
  constructor(vm: string, user: string) {
    this.vm = vm;
    this.user = user;
  }

  private async agent<T>(what: string, body: object, signal?: AbortSignal): Promise<T> {
    const user = this.user === "" ? {} : { user: this.user };
    const path = `/v1/vms/${part(this.vm)}/agent/v1/fs/${what}`;
    return await call<T>("POST", path, { body: { ...body, ...user }, signal });
  }

  /** Where a file's bytes are. */
  private address(path: string): string {
    const query = new URLSearchParams({ path, user: this.user === "" ? "root" : this.user });
    return `/v1/vms/${part(this.vm)}/files?${query.toString()}`;
  }

  /** What is in a directory: directories first, by name. */
  async list(path: string, signal?: AbortSignal): Promise<FileEntry[]> {
    const reply = await this.agent<unknown>("list", { path }, signal);
    const given = reply === undefined ? [] : Array.isArray(reply) ? reply : [reply];
    const rank = ({ type }: FileEntry): number => (type === "dir" ? 0 : 1);
    return (given as Record<string, unknown>[])
      .map(entryOf)
      .toSorted((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name));
  }

  /** What a path is, links followed. */
  async stat(path: string): Promise<FileEntry> {
    return entryOf(await this.agent<Record<string, unknown>>("stat", { path, follow: true }));
  }

  /** Make a directory. */
  async mkdir(path: string): Promise<void> {
    await this.agent("mkdir", { path });
  }

  /** Rename. */
  async move(from: string, to: string): Promise<void> {
    await this.agent("move", { from, to });
  }

  /** Remove a file, or a directory with all that is in it. */
  async remove(path: string): Promise<void> {
    await this.agent("remove", { path, recursive: true });
  }

  /** A file's bytes. @param onBytes how many are here */
  async read(path: string, onBytes: (count: number) => void, signal: AbortSignal): Promise<Blob> {
    const reply = await ask("GET", this.address(path), { signal });
    const chunks: Uint8Array<ArrayBuffer>[] = [];
    let count = 0;
    const reader = reply.body?.getReader();
    for (;;) {
      const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
      if (done || value === undefined) break;
      chunks.push(value);
      count += value.length;
      onBytes(count);
    }
    return new Blob(chunks);
  }

  /**
   * Write a file; it appears when it is whole. By XMLHttpRequest, which alone tells how far it is.
   * @param onBytes how many have been sent
   */
  async write(
    path: string,
    bytes: Blob,
    onBytes: (count: number) => void,
    signal: AbortSignal,
  ): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("PUT", this.address(path));
      request.setRequestHeader("authorization", `Bearer ${currentKey() ?? ""}`);
      request.upload.addEventListener("progress", ({ loaded }) => onBytes(loaded));
      request.addEventListener("load", () => {
        if (request.status < 300) resolve();
        else {
          const text = request.responseText;
          const { error } = JSON.parse(text === "" ? "{}" : text) as { error?: ApiError["info"] };
          const unknown = { code: "ERR_UI_REPLY", message: `Status ${request.status}` };
          reject(new ApiError(error ?? unknown, request.status));
        }
      });
      const broken = { code: "ERR_UI_UNREACHABLE", message: "The connection broke" };
      request.addEventListener("error", () => reject(new ApiError(broken, 0)));
      signal.addEventListener("abort", () => {
        request.abort();
        reject(signal.reason as Error);
      });
      request.send(bytes);
    });
  }
}

/** A path below a directory. */
export const below = (directory: string, name: string): string =>
  directory === "/" ? `/${name}` : `${directory}/${name}`;

/** The directory that a path is in. */
export const parentOf = (path: string): string => path.replace(/\/[^/]*$/, "") || "/";

/** `rwxr-xr-x`. */
export function modeText(mode: number): string {
  return Array.from({ length: 9 }, (_, at) =>
    (mode >> (8 - at)) & 1 ? "rwx".charAt(at % 3) : "-",
  ).join("");
}
