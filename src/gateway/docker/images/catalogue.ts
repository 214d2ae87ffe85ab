/** The store's images by what Docker calls them: names, and the digest of the configuration. */
import type { ImageDetails } from "../../../client/images.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import type { ImageView } from "../../../model/api/images.ts";
import { VmsanError } from "../../../model/errors.ts";
import { DockerError } from "../errors.ts";
import { familiar, withTag } from "./names.ts";

/** An image as Docker counts them: what has one configuration is one. */
export interface KnownImage {
  /** `sha256:` and the configuration's digest. */
  id: string;
  /** Of the manifest. */
  digest: string;
  /** As people read them. */
  names: string[];
  details: ImageDetails;
  view: ImageView;
}

/** Most images whose details are remembered. */
const REMEMBERED = 2000;

/** The images of one VMSAN_DIR. */
export class Catalogue {
  private readonly vmsan: Vmsan;
  private readonly known = new Map<string, ImageDetails>();

  constructor(vmsan: Vmsan) {
    this.vmsan = vmsan;
  }

  private async detailsOf(view: ImageView): Promise<ImageDetails | undefined> {
    const known = this.known.get(view.digest);
    if (known !== undefined) return known;
    try {
      const details = await this.vmsan.images.inspect(view.names[0] ?? view.digest);
      if (this.known.size >= REMEMBERED) this.known.clear();
      if (details.digest === view.digest) this.known.set(view.digest, details);
      return details;
    } catch (error) {
      // Damaged, or removed meanwhile: it cannot be used, so it is not shown.
      if (error instanceof VmsanError && error.code.startsWith("ERR_IMAGE_")) return undefined;
      throw error;
    }
  }

  /** All of them. */
  async all(): Promise<KnownImage[]> {
    const { images } = await this.vmsan.images.list();
    const byId = new Map<string, KnownImage>();
    for (const view of images) {
      const details = await this.detailsOf(view);
      if (details === undefined) continue;
      const { configDigest: id } = details;
      const before = byId.get(id);
      if (before === undefined) {
        const names = view.names.map(familiar);
        byId.set(id, { id, digest: view.digest, names, details, view });
        continue;
      }
      // Several manifests with one configuration, as after a build that packed the layers anew.
      before.names.push(...view.names.map(familiar));
      before.view = { ...before.view, usedBy: [...before.view.usedBy, ...view.usedBy] };
    }
    return [...byId.values()];
  }

  /**
   * An image by a name, its ID or the beginning of that.
   * @throws 404 `No such image: NAME:TAG`, which clients look for and pull
   */
  async find(ref: string): Promise<KnownImage> {
    const found = await this.lookUp(ref);
    if (found !== undefined) return found;
    throw new DockerError(404, `No such image: ${withTag(ref.slice(0, 300))}`);
  }

  private async lookUp(ref: string): Promise<KnownImage | undefined> {
    const hex = /^(?:sha256:)?([0-9a-f]{4,64})$/.exec(ref)?.[1];
    const named = ref.startsWith("sha256:") ? undefined : await this.byName(ref);
    if (named === undefined && hex === undefined) return undefined;
    const all = await this.all();
    if (named !== undefined) {
      return (
        all.find(({ id }) => id === named.configDigest) ?? {
          id: named.configDigest,
          digest: named.digest,
          names: named.names.map(familiar),
          details: named,
          view: named,
        }
      );
    }
    const begins = (digest: string): boolean => digest.startsWith(`sha256:${hex}`);
    const matches = all.filter(({ id }) => begins(id));
    if (matches.length > 1)
      throw new DockerError(400, `multiple IDs found with provided prefix: ${ref}`);
    return matches[0] ?? all.find(({ digest }) => begins(digest));
  }

  private async byName(ref: string): Promise<ImageDetails | undefined> {
    try {
      return await this.vmsan.images.inspect(ref);
    } catch (error) {
      if (!(error instanceof VmsanError)) throw error;
      if (error.code === "ERR_IMAGE_NOT_FOUND") return undefined;
      if (error.code !== "ERR_VALIDATION_IMAGE_REF") throw error;
      if (/^[0-9a-f]{64}$/.test(ref)) return undefined;
      throw new DockerError(400, `invalid reference format: ${error.why ?? ""}`, error);
    }
  }
}
