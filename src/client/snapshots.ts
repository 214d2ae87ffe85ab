/** Snapshots of VMs, for SDK users. */
import type { Readable, Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { SnapshotPrune, SnapshotRequest, SnapshotView } from "../model/api.ts";
import { encodeText } from "../util/byte-text.ts";
import type { Daemon, WorkOptions } from "./daemon.ts";
import { vmPath } from "./paths.ts";
import { uploadOf } from "./upload.ts";
import { writeWhole } from "./write-whole.ts";

/** How a snapshot is to be taken. */
export interface SnapshotOptions extends WorkOptions {
  /** Unique, usable wherever its ID is. */
  name?: string;
  /** Of the disk alone: a VM made of it boots. */
  diskOnly?: boolean;
  /** Let the VM go on afterwards; default true. Otherwise it is left paused. */
  resume?: boolean;
}

/** Path of a snapshot's resource. */
export function snapshotPath(ref: string, rest = ""): string {
  return `/v1/snapshots/${encodeText(ref)}${rest === "" ? "" : `/${rest}`}`;
}

/** The snapshots of one VMSAN_DIR. */
export class Snapshots {
  private readonly daemon: Daemon;

  constructor(daemon: Daemon) {
    this.daemon = daemon;
  }

  /** All snapshots, oldest first. */
  async list(): Promise<SnapshotView[]> {
    return (await this.daemon.call<{ snapshots: SnapshotView[] }>("GET", "/v1/snapshots"))
      .snapshots;
  }

  /** A snapshot by its ID or name. @throws ERR_VM_SNAPSHOT_NOT_FOUND */
  async get(ref: string): Promise<SnapshotView> {
    return await this.daemon.call<SnapshotView>("GET", snapshotPath(ref));
  }

  /**
   * Take a snapshot of a VM. Of a running one it has the memory, of a stopped one the disk.
   * @param vm its ID or name
   * @throws ERR_VM_NOT_RUNNING, ERR_SNAPSHOT_NAME_TAKEN, ERR_VM_SNAPSHOT_CREATE_FAILED
   */
  async create(vm: string, options: SnapshotOptions = {}): Promise<SnapshotView> {
    const { name, diskOnly, resume, ...work } = options;
    const body: SnapshotRequest = {
      ...(name === undefined ? {} : { name }),
      memory: diskOnly !== true,
      resume: resume ?? true,
    };
    return await this.daemon.streamed<SnapshotView>("POST", vmPath(vm, "snapshots"), {
      body,
      ...work,
    });
  }

  /** Remove a snapshot; VMs that were made of it stay as they are. */
  async remove(ref: string): Promise<void> {
    await this.daemon.call("DELETE", snapshotPath(ref));
  }

  /**
   * Remove snapshots that no VM was made of and that have no name.
   * @param options `all`: also those with a name
   */
  async prune(options: { all?: boolean } = {}): Promise<SnapshotPrune> {
    return await this.daemon.call<SnapshotPrune>("POST", snapshotPath("prune"), {
      body: { all: options.all ?? false },
    });
  }

  /**
   * Write a snapshot as one file, with all that another host of the same kind needs.
   * @param to a file's path (replaced when the archive is whole) or a stream
   */
  async export(ref: string, to: string | Writable, signal?: AbortSignal): Promise<void> {
    const options = signal === undefined ? {} : { signal };
    const archive = await this.daemon.download("GET", snapshotPath(ref, "archive"), options);
    if (typeof to === "string") await writeWhole(archive, to, 0o600);
    else await pipeline(archive, to, { end: false });
  }

  /**
   * Take in a snapshot that was exported. Its memory is run as it is: take it from whom you trust.
   * @param from a file's path or a stream
   * @param options `name`: instead of the one it had
   */
  async import(
    from: string | Readable,
    options: WorkOptions & { name?: string } = {},
  ): Promise<SnapshotView> {
    const { name, ...work } = options;
    const upload = await uploadOf(from);
    const query = name === undefined ? "" : `?${new URLSearchParams({ name }).toString()}`;
    return await this.daemon.streamed<SnapshotView>("POST", `/v1/snapshots/import${query}`, {
      upload,
      ...work,
    });
  }
}
