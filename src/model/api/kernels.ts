/** Kernels of the store, as the daemon is asked for them and shows them. */

/** A kernel of the store as `kernel ls` shows it. */
export interface KernelView {
  id: string;
  /** Its `uname -r`. */
  version: string;
  arch: "x86_64" | "aarch64";
  /** `debian`: fetched by vmsan; `built`: by scripts/build-kernel.sh; `added`: by the user. */
  origin: "debian" | "built" | "added";
  /** Where it comes from, for people. */
  source: string;
  /** Modules that the initramfs brings along; none when all is built in. */
  modules: number;
  /** Guests load all others on demand, from a disk of them. */
  modulesDisk: boolean;
  sizeBytes: number;
  /** RFC 3339. */
  addedAt: string;
  /** New VMs get this one. */
  current: boolean;
  /** Names of VMs that boot it. */
  usedBy: string[];
}

/** The kernels of the store. */
export interface KernelList {
  kernels: KernelView[];
  /** What `kernel use` was told last: an ID or `default`. */
  chosen: string;
}

/** A kernel to be added to the store. */
export interface KernelRequest {
  /** Absolute path of vmlinuz, bzImage, vmlinux or Image. */
  file: string;
  /** Absolute path of its /lib/modules/VERSION; without one everything must be built in. */
  modulesDir?: string;
}
