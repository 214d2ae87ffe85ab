/** How much of a container's output is kept. */
import type { HostConfig } from "../../../schema/docker.ts";
import { DockerError } from "../errors.ts";
import { DEFAULT_LIMITS } from "../../../containers/logs/container-log.ts";
import type { LogLimits } from "../../../containers/logs/container-log.ts";

const UNITS: Record<string, number> = { "": 1, b: 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 };

/** `10m` and the like, in bytes. @throws 400 */
function parseSize(text: string): number {
  const match = /^(\d{1,12})([bkmg]?)b?$/i.exec(text);
  const bytes = match === null ? 0 : Number(match[1]) * (UNITS[match[2]?.toLowerCase() ?? ""] ?? 1);
  if (bytes > 0) return bytes;
  throw new DockerError(400, `invalid value for max-size: ${text.slice(0, 60)}`);
}

/** The limits that a container was made with; undefined: nothing is kept. @throws 400 */
export function logLimitsOf(host: HostConfig): LogLimits | undefined {
  if (host.LogConfig?.Type === "none") return undefined;
  const options = host.LogConfig?.Config ?? {};
  const size = options["max-size"];
  if (size === undefined || size === "-1") return DEFAULT_LIMITS;
  const files = Number(options["max-file"] ?? 1);
  if (!Number.isInteger(files) || files < 1) {
    throw new DockerError(400, `invalid value for max-file: ${options["max-file"]?.slice(0, 60)}`);
  }
  const fileBytes = parseSize(size);
  // One file alone would be empty after each turn.
  return files === 1 ? { fileBytes: Math.ceil(fileBytes / 2), files: 2 } : { fileBytes, files };
}
