/** Paths of the HTTP API. */

/** The API path of a VM. */
export function vmPath(ref: string, rest?: string): string {
  const base = `/v1/vms/${encodeURIComponent(ref)}`;
  return rest === undefined ? base : `${base}/${rest}`;
}
