/** Volumes of the host that pods name: made when they are not there, within what their namespace may have. */
import type { Vmsan } from "../../../client/vmsan.ts";
import { Slots } from "../../../util/flow/slots.ts";
import { formatBytes } from "../../../util/units.ts";
import { PodNotReadyError } from "../spec/failure.ts";
import { POD_NAMESPACE_LABEL } from "../spec/plan.ts";

/** Size of one that is made, in bytes. */
const VOLUME_BYTES = 10 * 2 ** 30;
/** What a namespace may have when nothing is said, in bytes. */
export const DEFAULT_QUOTA = 2 * VOLUME_BYTES;

/** The volumes of pods on this host. They outlive pods, so their number is bounded and not only those at work. */
export class PodVolumes {
  private readonly vmsan: Vmsan;
  private readonly quotaBytes: number;
  /** Two pods at once must not both find room for the last one. */
  private readonly turn = new Slots(1);

  /** @param quotaBytes what volumes of one namespace may be large together; those of an administrator count, too */
  constructor(vmsan: Vmsan, quotaBytes: number) {
    this.vmsan = vmsan;
    this.quotaBytes = quotaBytes;
  }

  /**
   * Have volumes be there.
   * @param names on the host, `NAMESPACE.NAME`
   * @throws PodNotReadyError when they are not, and there is no room for them
   */
  async ensure(namespace: string, names: readonly string[], signal?: AbortSignal): Promise<void> {
    if (names.length === 0) return;
    await this.turn.run(async () => {
      const all = await this.vmsan.volumes.list();
      const missing = [...new Set(names)].filter(
        (wanted) => !all.some(({ name }) => name === wanted),
      );
      const own = all.filter(({ name }) => name.startsWith(`${namespace}.`));
      const used = own.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
      if (missing.length > 0 && used + missing.length * VOLUME_BYTES > this.quotaBytes) {
        throw new PodNotReadyError(
          "VolumeQuotaExceeded",
          `no room for ${missing.join(", ")}: volumes of namespace ${namespace} have ${formatBytes(used)} of ${formatBytes(this.quotaBytes)} on this host, and a new one takes ${formatBytes(VOLUME_BYTES)}`,
        );
      }
      const labels = { [POD_NAMESPACE_LABEL]: namespace };
      for (const name of missing) {
        await this.vmsan.volumes.create(name, { size: VOLUME_BYTES / 2 ** 30, labels });
      }
    }, signal);
  }
}
