/**
 * oci/: image sources become verified blobs. Takes a reference to a registry, a layout, an
 * archive or a bare tree; gives an Image whose manifest, configuration and layers are files
 * with known digests, kept in a content store that several processes share.
 *
 * images.ts: everything the other folders use of it. Heavy parts load when first needed.
 */
export { formatImageSource, parseImageSource } from "./source.ts";
export type { ParseOptions } from "./source.ts";
export { formatReference, parseReference } from "./reference.ts";
export { formatPlatform, hostPlatform, parsePlatform } from "./platform.ts";
export { ContentStore, openStore } from "./store.ts";
export { pin, takeLease, unpin, withLease } from "./leases.ts";
export type { Lease } from "./leases.ts";
export { importArchive, resolveImage } from "./resolve.ts";
export type { PullPolicy, ResolveOptions } from "./resolve.ts";
export type { RegistryOptions } from "./pull.ts";
export { loadRegistries } from "./registries.ts";
export type { RegistriesConfig } from "./registries.ts";
export type { Credentials } from "./credentials.ts";
export type { LoginOptions } from "./login.ts";
export type { DiskUse, ImageDetails, ImageSummary, PruneOptions, Removed } from "./manage.ts";
export type { SaveOptions } from "./save.ts";
