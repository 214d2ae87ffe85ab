/** When the daemon ends (killed, crashed, upgraded) before it has answered. */
import { VmsanError } from "../model/errors.ts";

/** Times that a call is made in all while daemons die under it: a call that kills them must end. */
export const ATTEMPTS = 10;

/**
 * ERR_DAEMON_LOST: what was under way, what has become of it, and what to do.
 * @param what was under way: `The daemon ended before …`
 * @param details for programs, e.g. the VM's ID and what it is now
 */
export function daemonLost(
  what: string,
  became: string,
  fix: string,
  cause: unknown,
  details?: Record<string, unknown>,
): VmsanError {
  return new VmsanError(
    {
      code: "ERR_DAEMON_LOST",
      message: `The daemon ended before ${what}`,
      why: `It was killed or has crashed. ${became}`,
      fix,
      ...(details === undefined ? {} : { details }),
    },
    cause,
  );
}

/** Whether an error says that a daemon which was just being started was killed. */
export function isKilledAtStart(error: unknown): boolean {
  return (
    error instanceof VmsanError &&
    error.code === "ERR_DAEMON_START" &&
    error.details?.["signal"] !== undefined
  );
}
