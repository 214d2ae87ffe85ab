/** Guest kernels of the store, for SDK users. */
import type { KernelList, KernelRequest, KernelView } from "../model/api/kernels.ts";
import { encodeText } from "../util/byte-text.ts";
import type { Daemon } from "./daemon.ts";
import { textPath } from "./paths.ts";

/** The guest kernels of one VMSAN_DIR. */
export class Kernels {
  private readonly daemon: Daemon;

  constructor(daemon: Daemon) {
    this.daemon = daemon;
  }

  /** All kernels, newest version first. */
  async list(): Promise<KernelList> {
    return await this.daemon.call<KernelList>("GET", "/v1/kernels");
  }

  /**
   * Verify, unpack and keep a kernel; the same file again gives the same kernel.
   * @param file vmlinuz, bzImage, vmlinux or Image
   * @throws ERR_KERNEL_FORMAT, ERR_KERNEL_FEATURE, ERR_KERNEL_UNPACK, ERR_KERNEL_STORE
   */
  async add(file: string, options: { modulesDir?: string } = {}): Promise<KernelView> {
    const { modulesDir } = options;
    const request: KernelRequest = {
      file: textPath(file),
      ...(modulesDir === undefined ? {} : { modulesDir: textPath(modulesDir) }),
    };
    return await this.daemon.call<KernelView>("POST", "/v1/kernels", {
      body: request,
      repeat: true,
    });
  }

  /**
   * Choose the kernel of new VMs; those that exist keep theirs.
   * @param id of the list, or `default`
   * @throws ERR_KERNEL_NOT_FOUND
   */
  async use(id: string): Promise<KernelList> {
    return await this.daemon.call<KernelList>("POST", "/v1/kernels/use", {
      body: { id },
      repeat: true,
    });
  }

  /** Remove a kernel. @throws ERR_KERNEL_NOT_FOUND, ERR_KERNEL_IN_USE while a VM boots it */
  async remove(id: string): Promise<void> {
    await this.daemon.call("DELETE", `/v1/kernels/${encodeText(id)}`, {
      doneIf: "ERR_KERNEL_NOT_FOUND",
    });
  }
}
