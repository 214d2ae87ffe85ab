/** rootfs/: placeholder of the lead, to be replaced. */
import type { LayerBlob } from "../model/image.ts";
import type { BuilderName } from "../model/disk.ts";
export async function ensureRootfs(
  _layers: LayerBlob[],
  _options: {
    cacheDir: string;
    sizeBytes: number;
    journal: boolean;
    builder?: BuilderName;
    signal: AbortSignal;
    progress: (done: number, total: number) => void;
  },
): Promise<{ path: string }> {
  throw new Error("not yet");
}
