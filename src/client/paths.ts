/** Paths: of the HTTP API, and of this host as the daemon takes them. */
import { VmsanError } from "../model/errors.ts";
import { absolutePath, holdsBytes } from "../util/byte-text.ts";
import { parseVmRef } from "../util/names.ts";

/** The API path of a VM. @throws ERR_VALIDATION_FLAGS for what is neither an ID nor a name */
export function vmPath(ref: string, rest?: string): string {
  const base = `/v1/vms/${parseVmRef(ref)}`;
  return rest === undefined ? base : `${base}/${rest}`;
}

/**
 * A path of this host for the daemon, whose working directory is another, where programs are given
 * it that take text. @throws ERR_VALIDATION_PATH for a name that is not UTF-8
 */
export function textPath(path: string): string {
  const absolute = absolutePath(path);
  if (!holdsBytes(absolute)) return absolute;
  throw new VmsanError({
    code: "ERR_VALIDATION_PATH",
    message: `Cannot use ${absolute} here`,
    why: "Its name is not UTF-8.",
    fix: "Use it by another name, a symbolic link for example.",
  });
}
