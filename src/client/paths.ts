/** Paths of the HTTP API. */
import { parseVmRef } from "../util/names.ts";

/** The API path of a VM. @throws ERR_VALIDATION_FLAGS for what is neither an ID nor a name */
export function vmPath(ref: string, rest?: string): string {
  const base = `/v1/vms/${parseVmRef(ref)}`;
  return rest === undefined ? base : `${base}/${rest}`;
}
