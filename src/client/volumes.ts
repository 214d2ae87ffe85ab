/** Volumes, for SDK users. */
import type { Readable, Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { VolumePrune, VolumeRequest, VolumeView } from "../model/volume.ts";
import { encodeText } from "../util/byte-text.ts";
import { parseVolumeName } from "../util/mounts.ts";
import { parseDiskSize } from "../util/units.ts";
import type { Daemon, WorkOptions } from "./daemon.ts";
import { uploadOf } from "./upload.ts";
import { writeWhole } from "./write-whole.ts";

/** Path of a volume's resource. @throws ERR_VALIDATION_VOLUME */
function volumePath(name: string, rest = ""): string {
  return `/v1/volumes/${encodeText(parseVolumeName(name))}${rest}`;
}

/** The volumes of one VMSAN_DIR. */
export class Volumes {
  private readonly daemon: Daemon;

  constructor(daemon: Daemon) {
    this.daemon = daemon;
  }

  /** All volumes by name. */
  async list(): Promise<VolumeView[]> {
    return (await this.daemon.call<{ volumes: VolumeView[] }>("GET", "/v1/volumes")).volumes;
  }

  /** A volume by its name. @throws ERR_VOLUME_NOT_FOUND */
  async get(name: string): Promise<VolumeView> {
    return await this.daemon.call<VolumeView>("GET", volumePath(name));
  }

  /**
   * Make an empty volume.
   * @param options `size` in GiB (`20`, `20gb`), default 10; it takes up what is in it alone. `shared`: a directory of the
   *   host, which any number of VMs write to at the same time
   * @throws ERR_VOLUME_NAME_TAKEN, ERR_VOLUME_SHARED
   */
  async create(
    name: string,
    options: { size?: number | string; labels?: Record<string, string>; shared?: boolean } = {},
  ): Promise<VolumeView> {
    const body: VolumeRequest = {
      name: parseVolumeName(name),
      ...(options.size === undefined ? {} : { sizeBytes: parseDiskSize(options.size) }),
      labels: options.labels ?? {},
      ...(options.shared === true && { shared: true }),
    };
    return await this.daemon.call<VolumeView>("POST", "/v1/volumes", { body });
  }

  /** Remove a volume with all in it. @throws ERR_VOLUME_IN_USE while a VM mounts it, also a stopped one */
  async remove(name: string): Promise<void> {
    await this.daemon.call("DELETE", volumePath(name));
  }

  /** Remove all volumes that no VM mounts, but for those of keys' projects. */
  async prune(): Promise<VolumePrune> {
    return await this.daemon.call<VolumePrune>("POST", "/v1/volumes/prune", { body: {} });
  }

  /**
   * Make a volume larger that nobody holds, or that a running VM writes to.
   * @throws ERR_VOLUME_IN_USE, ERR_VOLUME_SIZE, ERR_DISK_GROW, ERR_DRIVER_UNSUPPORTED
   */
  async grow(name: string, size: number | string): Promise<VolumeView> {
    const body = { sizeBytes: parseDiskSize(size) };
    return await this.daemon.call<VolumeView>("POST", volumePath(name, "/grow"), { body });
  }

  /**
   * Make a volume that nobody uses a shared one: a directory of the host with what was in it. There is no way back.
   * @throws ERR_VOLUME_IN_USE, ERR_VOLUME_SHARED for one of keys' projects
   */
  async share(name: string): Promise<VolumeView> {
    return await this.daemon.call<VolumeView>("POST", volumePath(name, "/share"), { body: {} });
  }

  /**
   * Write a volume as one file.
   * @param to a file's path (replaced when the archive is whole) or a stream
   * @throws ERR_VOLUME_IN_USE while a VM may write to it
   */
  async export(name: string, to: string | Writable, signal?: AbortSignal): Promise<void> {
    const options = signal === undefined ? {} : { signal };
    const archive = await this.daemon.download("GET", volumePath(name, "/archive"), options);
    if (typeof to === "string") await writeWhole(archive, to, 0o600);
    else await pipeline(archive, to, { end: false });
  }

  /**
   * Take in a volume that was exported.
   * @param from a file's path or a stream
   * @throws ERR_VOLUME_NAME_TAKEN, ERR_VOLUME_ARCHIVE
   */
  async import(name: string, from: string | Readable, work: WorkOptions = {}): Promise<VolumeView> {
    const upload = await uploadOf(from);
    return await this.daemon.streamed<VolumeView>("POST", volumePath(name, "/archive"), {
      upload,
      ...work,
    });
  }
}
