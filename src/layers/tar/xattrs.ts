/** Extended attributes and ACLs in PAX headers, in the ways tar writers store them. */
import { parseAclText } from "./acl.ts";

const SCHILY = "SCHILY.xattr.";
const LIBARCHIVE = "LIBARCHIVE.xattr.";
const ACLS: readonly [string, string][] = [
  ["SCHILY.acl.access", "system.posix_acl_access"],
  ["SCHILY.acl.default", "system.posix_acl_default"],
];

/**
 * What the overlay file system notes for itself. In a layer it tells of the machine that made it;
 * the guest's own overlay would obey it.
 */
const OVERLAY = "trusted.overlay.";

/** Undo URL escapes in an attribute's name (byte string). */
function unescapeName(name: string): string {
  return name.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

/** The attributes that records name; undefined when there are none. SCHILY wins over LIBARCHIVE. */
export function paxXattrs(
  records: ReadonlyMap<string, string>,
): Map<string, Uint8Array> | undefined {
  if (records.size === 0) return undefined;
  const found = new Map<string, Uint8Array>();
  for (const [key, value] of records) {
    // An empty value deletes, as everywhere in PAX.
    if (value === "") continue;
    if (key.startsWith(LIBARCHIVE)) {
      const name = unescapeName(key.slice(LIBARCHIVE.length));
      if (!found.has(name)) found.set(name, Buffer.from(value, "base64"));
    } else if (key.startsWith(SCHILY)) {
      found.set(key.slice(SCHILY.length), Buffer.from(value, "latin1"));
    }
  }
  for (const name of found.keys()) if (name.startsWith(OVERLAY)) found.delete(name);
  for (const [key, name] of ACLS) {
    const value = records.get(key);
    if (value === undefined || value === "" || found.has(name)) continue;
    const acl = parseAclText(value);
    if (acl !== undefined) found.set(name, acl);
  }
  return found.size === 0 ? undefined : found;
}
