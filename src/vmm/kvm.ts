/** KVM probe (being written). */
export interface KvmProbe {
  usable: boolean;
  reason: string;
  fix?: string;
}
export async function probeKvm(_o: { qemu: string; cacheDir: string }): Promise<KvmProbe> {
  return { usable: false, reason: "not probed" };
}
