/** VMs that are made for remote callers. */
import { streamedReply } from "../../http/reply.ts";
import type { RouteContext } from "./route.ts";

/**
 * Have the daemon make one VM or several, with the progress as the reply. Ephemeral ones end with the caller's
 * connection.
 * @param path of the daemon's route; @param giveBack called when what the key had set aside for them is counted or free
 * @param shown what the caller sees of it
 */
export function making<Made>(
  { c, vmsan }: RouteContext,
  path: string,
  request: { ephemeral: boolean },
  giveBack: () => void,
  shown: (made: Made) => Made,
): Response {
  let release: (() => void) | undefined;
  return streamedReply<Made>(
    c,
    async (work) => {
      try {
        const made = await vmsan.daemon.streamed<Made>("POST", path, {
          body: request,
          signal: work.signal,
          onProgress: work.progress,
          onVm: (id) => work.send({ event: "vm", id }),
          ...(request.ephemeral ? { onHold: (end: () => void) => void (release = end) } : {}),
        });
        return shown(made);
      } finally {
        giveBack();
      }
    },
    async (gone) => {
      if (release === undefined) return;
      await gone;
      release();
    },
  );
}
