/**
 * What a kernel without modules must have built in. An uncompressed kernel has no list of that,
 * but a driver that is in it brings its own words along, which occur nowhere else in a kernel.
 */
import { VmsanError } from "../model/errors.ts";

/** What a guest cannot do without, and words of which one must be there. */
const needed: readonly { what: string; words: readonly string[] }[] = [
  { what: "virtio_mmio", words: ["virtio-mmio"] },
  { what: "virtio_blk", words: ["virtio_blk"] },
  { what: "ext4", words: ["EXT4-fs", "ext4_inode_cache"] },
  { what: "overlay", words: ["overlayfs", "upperdir"] },
  {
    what: "a channel to the host (virtio_console or vmw_vsock_virtio_transport)",
    words: ["virtio-ports", "vmw_vsock_virtio_transport"],
  },
];

/**
 * What an uncompressed kernel has not built in of what a guest needs before its disks are there.
 * @returns names of options or modules; empty: it can boot a guest without modules
 */
export function missingFeatures(kernel: Buffer): string[] {
  return needed
    .filter(({ words }) => !words.some((word) => kernel.includes(word, 0, "latin1")))
    .map(({ what }) => what);
}

/** The refusal of a kernel that lacks something. @param file as it was given */
export function lacksFeatures(file: string, missing: readonly string[]): VmsanError {
  return new VmsanError({
    code: "ERR_KERNEL_FEATURE",
    message: `Cannot boot guests with the kernel ${file}`,
    why: `It has not built in: ${missing.join(", ")}; and no modules came with it.`,
    fix: "Add it with its modules, `vmsan kernel add FILE --modules /lib/modules/VERSION`, and use that one; or leave out --kernel.",
  });
}
