/** What guests see in place of secrets. */
import { randomBytes } from "node:crypto";

/**
 * A new placeholder: letters, digits and nothing that any part of a request would write in another
 * way; as good as never said by chance.
 */
export function newPlaceholder(): string {
  return `vmsanSecret${randomBytes(20).toString("hex")}`;
}
