/** The errors that a daemon, or a gateway, answers with. */
import { VmsanError } from "../../model/errors.ts";
import type { ErrorInfo } from "../../model/errors.ts";

/** Parse a reply body that should be `{"error": …}`. */
export function errorFrom(status: number, text: string): VmsanError {
  try {
    const parsed = JSON.parse(text) as { error?: ErrorInfo };
    if (parsed.error !== undefined) return new VmsanError(parsed.error);
  } catch {
    // Not JSON: reported as it came, below.
  }
  return new VmsanError({
    code: "ERR_DAEMON_REPLY",
    message: `The daemon answered with status ${status}`,
    why: text.slice(0, 500),
    fix: "See the daemon's log: vmsan daemon logs.",
  });
}
