/** Images of the store, for SDK users. */
import { mkdir, realpath } from "node:fs/promises";
import type { Readable, Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { BlobPeers, PullPolicy } from "../model/api.ts";
import type {
  DiskRequest,
  HistoryEntry,
  ImageList,
  ImageView,
  PruneReport,
  PushReport,
  SaveFormat,
} from "../model/api/images.ts";
import type { DiskSummary } from "../model/disk.ts";
import type { ImageConfig } from "../model/image.ts";
import { absolutePath, encodeText, fsPath, textOfBytes } from "../util/byte-text.ts";
import { parseDiskSize } from "../util/units.ts";
import { daemonLost } from "./lost.ts";
import { absoluteSource, registryAccess } from "./options.ts";
import type { Daemon, WorkOptions } from "./daemon.ts";
import { withCredentials } from "./registry/credentials.ts";
import type { RegistryCredentials } from "./registry/credentials.ts";
import { textPath } from "./paths.ts";
import { both, traced } from "./tracing/tracing.ts";
import { uploadOf } from "./upload.ts";
import { writeWhole } from "./write-whole.ts";

/** What an image is, in full. */
export interface ImageDetails extends ImageView {
  configDigest: string;
  /** Who made it, if that is told. */
  author?: string;
  /** What is told of its last step. */
  comment?: string;
  config: ImageConfig;
  layers: { digest: string; diffId: string; size: number; compression: string }[];
}

/** Credentials for a registry. */
export interface LoginOptions {
  username: string;
  password: string;
  /** Path of certificates of authorities to trust besides the system's. */
  caFile?: string;
}

/** How to pull. */
export interface PullOptions extends WorkOptions {
  /** For this call alone, instead of those that are kept. */
  credentials?: RegistryCredentials;
  pull?: PullPolicy;
  platform?: string;
  /** Path of certificates of authorities to trust besides the system's. */
  caFile?: string;
  /** Other hosts that may have the image's layers. */
  peers?: BlobPeers;
}

/** How to push. */
export interface PushOptions extends WorkOptions {
  /** For this call alone, instead of those that are kept. */
  credentials?: RegistryCredentials;
  /** Where to, e.g. `ghcr.io/me/app:1`; default the image's own name. */
  destination?: string;
  /** Which of several platforms under the name; default this host's. */
  platform?: string;
  /** Path of certificates of authorities to trust besides the system's. */
  caFile?: string;
}

/** How a file system is to become an image. */
export interface ImportOptions extends WorkOptions {
  /** What it is to be called; default after its digest. */
  name?: string;
  /** Instructions of a Dockerfile for its configuration, e.g. `CMD ["sh"]`. */
  changes?: readonly string[];
  /** For its history. */
  message?: string;
}

/** What became of it. */
export interface ImportReport {
  name: string;
  digest: string;
  configDigest: string;
}

/** How a disk image is to be written. */
export interface DiskOptions extends WorkOptions {
  /** GiB, default 10. */
  size?: number | string;
  builder?: "direct" | "mke2fs";
  journal?: boolean;
  platform?: string;
  pull?: PullPolicy;
  /** Path of certificates of authorities to trust besides the system's. */
  caFile?: string;
}

/** An archive on standard input, perhaps with a tag. */
const STDIN_SOURCE = /^(?:oci|docker)-archive:-(?::(.+))?$/s;

/** The images of one VMSAN_DIR. */
export class Images {
  private readonly daemon: Daemon;

  constructor(daemon: Daemon) {
    this.daemon = daemon;
  }

  /** All images, with what they occupy. */
  async list(): Promise<ImageList> {
    return await this.daemon.call<ImageList>("GET", "/v1/images");
  }

  /** Make an image available: fetched if needed, every blob verified. @throws ERR_IMAGE_* */
  async pull(source: string, options: PullOptions = {}): Promise<ImageDetails> {
    const { pull = "always", platform, caFile, peers, credentials, ...work } = options;
    const wanted = await this.source(source, pull, work);
    const access = registryAccess(caFile, peers);
    return await withCredentials(source, credentials, access, async (registry) =>
      traced("vmsan.pull", { "vmsan.image": source }, async (phases) =>
        this.daemon.streamed<ImageDetails>("POST", "/v1/images/pull", {
          body: { ...wanted, registry, ...(platform === undefined ? {} : { platform }) },
          // What had come whole is there already.
          repeat: true,
          ...work,
          onProgress: both(phases, work.onProgress),
        }),
      ),
    );
  }

  /**
   * A source as the daemon takes it: paths absolute, and an archive on standard input
   * (`docker-archive:-`, `oci-archive:-`) already loaded and named by its digest.
   */
  async source(
    text: string,
    pull: PullPolicy,
    work: WorkOptions,
  ): Promise<{ image: string; pull: PullPolicy }> {
    const match = STDIN_SOURCE.exec(text);
    if (match === null) return { image: absoluteSource(text), pull };
    const tag = match[1] === undefined ? "" : `&tag=${encodeText(match[1])}`;
    const { signal, onProgress } = work;
    const route = `/v1/images/load?one=true${tag}`;
    const [image] = await this.daemon.streamed<ImageDetails[]>("POST", route, {
      upload: () => process.stdin,
      ...(signal === undefined ? {} : { signal }),
      ...(onProgress === undefined ? {} : { onProgress }),
    });
    if (image === undefined) throw new TypeError("An archive without an image");
    // By digest: another archive of the same name may be loaded before this one is used.
    const name = image.names[0] ?? "localhost/imported";
    return { image: `${name}@${image.digest}`, pull: "never" };
  }

  /** Everything about an image of the store. @throws ERR_IMAGE_NOT_FOUND */
  async inspect(name: string): Promise<ImageDetails> {
    return await this.daemon.call<ImageDetails>(
      "GET",
      `/v1/images/inspect?name=${encodeText(absoluteSource(name))}`,
    );
  }

  /** The steps of an image's making, the last one first. @throws ERR_IMAGE_NOT_FOUND */
  async history(name: string): Promise<HistoryEntry[]> {
    const route = `/v1/images/history?name=${encodeText(absoluteSource(name))}`;
    return (await this.daemon.call<{ steps: HistoryEntry[] }>("GET", route)).steps;
  }

  /**
   * Send an image to a registry, unchanged, so that its digest is the same there; what the registry
   * has is not sent again.
   * @throws ERR_IMAGE_NOT_FOUND, ERR_IMAGE_UNAUTHORIZED, ERR_IMAGE_DENIED, ERR_IMAGE_NETWORK …
   */
  async push(name: string, options: PushOptions = {}): Promise<PushReport> {
    const { destination, platform, caFile, credentials, ...work } = options;
    const place = destination ?? name;
    return await withCredentials(place, credentials, registryAccess(caFile), async (registry) =>
      this.daemon.streamed<PushReport>("POST", "/v1/images/push", {
        body: {
          name,
          registry,
          ...(destination === undefined ? {} : { destination }),
          ...(platform === undefined ? {} : { platform }),
        },
        // What has been sent whole is there already.
        repeat: true,
        ...work,
      }),
    );
  }

  /** Give an image one more name. */
  async tag(name: string, newName: string): Promise<void> {
    await this.daemon.call("POST", "/v1/images/tag", { body: { name, newName }, repeat: true });
  }

  /**
   * Take a name away; what nothing else uses goes with the next prune.
   * @param options `keepHeld`: also the last name of one that is in use, which stays until nobody uses it
   * @throws ERR_IMAGE_IN_USE
   */
  async remove(name: string, options: { keepHeld?: boolean } = {}): Promise<void> {
    const held = options.keepHeld === true ? "&held=keep" : "";
    await this.daemon.call("DELETE", `/v1/images?name=${encodeText(name)}${held}`, {
      doneIf: "ERR_IMAGE_NOT_FOUND",
    });
  }

  /**
   * Keep images that no VM uses yet from being removed, across restarts, in the place of what the owner has held before.
   * @param owner a name of letters, digits, dots, underscores and dashes
   * @param digests of manifests; none: nothing is held any more
   * @param purpose who uses them, for messages
   */
  async hold(owner: string, digests: readonly string[], purpose: string): Promise<void> {
    const path = `/v1/images/holds/${encodeURIComponent(owner)}`;
    await this.daemon.call("PUT", path, { body: { digests, purpose }, repeat: true });
  }

  /** Remove what neither a name nor a VM uses; with `all`, every image that no VM uses. */
  async prune(options: { all?: boolean } = {}): Promise<PruneReport> {
    return await this.daemon.call<PruneReport>("POST", "/v1/images/prune", {
      body: { all: options.all ?? false },
      repeat: true,
    });
  }

  /** Load every image of a `docker save` or OCI archive. @param from a file's path or a stream */
  async load(from: string | Readable, work: WorkOptions = {}): Promise<ImageDetails[]> {
    return await this.uploaded("/v1/images/load", from, work);
  }

  /**
   * Make an image of a bare file system: a tar archive of it, compressed or not, as `docker export` writes one.
   * @param from a file's path or a stream
   * @throws ERR_IMAGE_ARCHIVE, ERR_VALIDATION_FLAGS
   */
  async import(from: string | Readable, options: ImportOptions = {}): Promise<ImportReport> {
    const { name, message, changes = [], ...work } = options;
    const query = [
      ...(name === undefined ? [] : [`name=${encodeText(name)}`]),
      ...(message === undefined ? [] : [`message=${encodeText(message)}`]),
      ...changes.map((change) => `change=${encodeText(change)}`),
    ];
    return await this.uploaded(`/v1/images/import?${query.join("&")}`, from, work);
  }

  /** Send a file or a stream with a call. */
  private async uploaded<T>(route: string, from: string | Readable, work: WorkOptions): Promise<T> {
    let file: Readable | undefined;
    const open = await uploadOf(from);
    try {
      return await this.daemon.streamed<T>("POST", route, {
        upload: () => {
          if (typeof from === "string") file?.destroy();
          return (file = open());
        },
        // A stream can be read once only.
        repeat: typeof from === "string",
        ...work,
      });
    } finally {
      if (typeof from === "string") file?.destroy();
    }
  }

  /**
   * Write an image, or several, as one archive.
   * @param to a file's path (replaced when the archive is whole) or a stream
   */
  async save(
    name: string | readonly string[],
    to: string | Writable,
    options: { format?: SaveFormat; signal?: AbortSignal } = {},
  ): Promise<void> {
    const archive = await this.archive(typeof name === "string" ? [name] : name, options);
    if (typeof to !== "string") {
      await pipeline(archive, to, { end: false });
      return;
    }
    await writeWhole(archive, to);
  }

  /**
   * Put an image's files into a directory, which is made when it is not there. They belong to the caller, set-id
   * bits, devices and pipes are left out, and nothing outside of the directory is written, whatever
   * links the image has.
   * @param onSkip what was left out, and why
   */
  async unpack(
    name: string,
    to: string,
    options: { signal?: AbortSignal; onSkip?: (path: string, why: string) => void } = {},
  ): Promise<void> {
    const { onSkip } = options;
    await mkdir(fsPath(absolutePath(to)), { recursive: true });
    // The caller's own links lead where the caller wants.
    const dir = await realpath(fsPath(absolutePath(to)), { encoding: "buffer" });
    const slash = dir.lastIndexOf(0x2f);
    const archive = await this.archive([name], { ...options, format: "rootfs" });
    const { extract } = await import("../agent/archive/extract.ts");
    await extract(archive, dir.subarray(0, Math.max(1, slash)), {
      as: dir.subarray(slash + 1),
      ...(onSkip === undefined ? {} : { onSkip: (what, why) => onSkip(textOfBytes(what), why) }),
    });
  }

  /** Images as an archive, to be read. */
  private async archive(
    images: readonly string[],
    { format = "oci-archive", signal }: { format?: SaveFormat; signal?: AbortSignal },
  ): Promise<AsyncIterable<Buffer>> {
    const names = images.map((one) => `&name=${encodeText(one)}`);
    const route = `/v1/images/save?format=${format}${names.join("")}`;
    const { fromStart, resumed } = await import("./resumed.ts");
    return resumed(
      fromStart(() => this.daemon.download("GET", route, signal === undefined ? {} : { signal })),
    );
  }

  /**
   * Check credentials with a registry and keep them where Docker's and containers' tools do.
   * @returns where they are kept
   */
  async login(registry: string, options: LoginOptions): Promise<{ where: string }> {
    const { login } = await import("../oci/registry/login.ts");
    const { loadRegistries } = await import("../oci/registry/registries.ts");
    const registries = await loadRegistries(this.daemon.layout.registriesFile);
    return await login(registry, { ...options, registries });
  }

  /** Forget the credentials for a registry. @returns false when there were none */
  async logout(registry: string): Promise<boolean> {
    const { logout } = await import("../oci/registry/login.ts");
    return await logout(registry);
  }

  /** Write an image's disk alone, as an ext4 file that boots. @throws ERR_DISK_* */
  async disk(source: string, output: string, options: DiskOptions = {}): Promise<DiskSummary> {
    const request: DiskRequest = {
      output: textPath(output),
      sizeBytes: parseDiskSize(options.size ?? 10),
      builder: options.builder ?? "direct",
      journal: options.journal ?? false,
      registry: registryAccess(options.caFile),
      ...(await this.source(source, options.pull ?? "missing", options)),
      ...(options.platform === undefined ? {} : { platform: options.platform }),
    };
    const summary = await this.daemon.streamed<DiskSummary | undefined>("POST", "/v1/images/disk", {
      body: request,
      repeat: true,
      doneIf: "ERR_DISK_EXISTS",
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
    });
    if (summary !== undefined) return summary;
    throw daemonLost(
      `it had reported on ${request.output}`,
      "The file was not there before, and gets its name when it is whole.",
      `Use it, or remove it and run the command again: rm ${request.output}`,
      undefined,
    );
  }
}
