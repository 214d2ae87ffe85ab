/** What one pod's container has printed, for those who ask. */
import { readWanted } from "../../../containers/logs/lines.ts";
import type { ContainerLog } from "../../../containers/logs/container-log.ts";
import { VmsanError } from "../../../model/errors.ts";
import type { PodLogOptions } from "../running.ts";

/** One run's log: where it is, and how it grows. */
export interface RunLog {
  dir: string;
  /** That run has begun, whether it has printed anything or not. */
  begun: boolean;
  /** Absent: nothing is added to it any more. */
  open?: ContainerLog;
}

/** When a reader begins, in nanoseconds. */
function sinceOf({ sinceTime, sinceSeconds }: PodLogOptions): bigint | undefined {
  if (sinceTime !== undefined) return BigInt(sinceTime.getTime()) * 1_000_000n;
  if (sinceSeconds === undefined) return undefined;
  return BigInt(Date.now() - sinceSeconds * 1000) * 1_000_000n;
}

/**
 * A log's bytes.
 * @param goesOn whether the run that is followed may print more
 * @throws ERR_NODE_LOG when there is none
 */
export async function* readPodLog(
  { dir, begun, open }: RunLog,
  options: PodLogOptions,
  goesOn: () => boolean,
): AsyncGenerator<Uint8Array> {
  if (open === undefined && !begun) {
    throw new VmsanError({
      code: "ERR_NODE_LOG",
      message: "There is no log of that container",
      why: "It has not run, or not that often.",
      fix: "See how often it has run: kubectl get pod.",
    });
  }
  const { follow = false, tailLines, timestamps = false, limitBytes = Infinity, signal } = options;
  const gone = (): boolean => signal?.aborted === true;
  const left = Promise.withResolvers<void>();
  signal?.addEventListener("abort", () => left.resolve(), { once: true });
  const reading =
    follow && open !== undefined
      ? {
          follow: {
            version: () => open.version,
            more: async (version: number) => {
              if (gone() || !goesOn()) return false;
              await Promise.race([open.changed(version), left.promise]);
              return !gone();
            },
          },
        }
      : {};
  const wish = {
    streams: [1, 2] as (1 | 2)[],
    timestamps,
    tail: tailLines,
    sinceNs: sinceOf(options),
    untilNs: undefined,
  };
  let given = 0;
  for await (const { bytes } of readWanted(dir, wish, reading)) {
    if (gone()) return;
    const part = bytes.subarray(0, limitBytes - given);
    given += part.length;
    if (part.length > 0) yield Buffer.from(part);
    if (given >= limitBytes) return;
  }
}
