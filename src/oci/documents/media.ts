/** Media types: which documents and contents are images' (media-types.md and Docker's twins). */

/** Media types that are written here. */
export const MEDIA = {
  index: "application/vnd.oci.image.index.v1+json",
  manifest: "application/vnd.oci.image.manifest.v1+json",
  config: "application/vnd.oci.image.config.v1+json",
  layer: "application/vnd.oci.image.layer.v1.tar",
  dockerList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  dockerConfig: "application/vnd.docker.container.image.v1+json",
} as const;

/** A media type without parameters, in small letters; empty for none. */
export function plainMediaType(text: string | undefined): string {
  return (text ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
}

/** What a media type says that a document is; undefined for one that says neither. */
export function kindOf(mediaType: string): "manifest" | "index" | undefined {
  switch (plainMediaType(mediaType)) {
    case MEDIA.index:
    case MEDIA.dockerList:
      return "index";
    case MEDIA.manifest:
    case MEDIA.dockerManifest:
      return "manifest";
    default:
      return undefined;
  }
}

/** Types that say nothing about content. */
const UNTYPED = ["", "application/octet-stream", "application/json", "text/plain"];

/** Whether a configuration of this type may be an image's; artifacts name types of their own. */
export function mayBeConfig(mediaType: string): boolean {
  const type = plainMediaType(mediaType);
  return type === MEDIA.config || type === MEDIA.dockerConfig || UNTYPED.includes(type);
}

/**
 * Whether content of this type may be a layer: a tar archive, whatever its compression, which the
 * content itself tells. An encrypted one is none that could be read.
 */
export function mayBeLayer(mediaType: string): boolean {
  const type = plainMediaType(mediaType);
  return UNTYPED.includes(type) || (/[./+-]x?-?g?tar\b/.test(type) && !isEncrypted(type));
}

/** Whether a layer is encrypted (ocicrypt's suffix). */
export function isEncrypted(mediaType: string): boolean {
  return plainMediaType(mediaType).endsWith("+encrypted");
}

/** Whether registries may do without a layer: deprecated since image-spec 1.1, and still found. */
export function isNonDistributable(mediaType: string): boolean {
  return /\.(foreign|nondistributable)\./.test(plainMediaType(mediaType));
}
