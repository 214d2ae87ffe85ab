/**
 * oci/: image sources become verified blobs. Takes a reference to a registry, a layout, an
 * archive or a bare tree; gives an Image whose manifest, configuration and layers are files
 * with known digests, kept in a content store that several processes share.
 *
 * Rooms, each using only those before it: http/ (the protocol), documents/ (what others wrote
 * about images), store/ (what is kept), archives/ (files and directories of other tools),
 * registry/ (images from servers). Here: names as users write them, which all rooms know, and the
 * ways through the rooms.
 *
 * images.ts: everything the other folders use of it. Heavy parts load when first needed.
 */
export { parseImageSource } from "./source.ts";
export { formatReference, parseReference } from "./reference.ts";
export { formatPlatform, hostPlatform, parsePlatform } from "./documents/platform.ts";
export { ContentStore, openStore } from "./store/store.ts";
export { pin, sharePin, sweepLeases, takeLease, unpin, withLease } from "./store/leases.ts";
export type { Lease } from "./store/leases.ts";
export { importArchive, resolveImage } from "./resolve.ts";
export type { PullPolicy, ResolveOptions } from "./resolve.ts";
export type { Follow } from "./registry/following.ts";
export type { RegistryOptions } from "./registry/pull.ts";
export { loadRegistries } from "./registry/registries.ts";
