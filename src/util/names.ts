/** Identifiers and names that users give: checked before they touch a path. */
import { invalid } from "./units.ts";

const VM_ID = /^vm-[0-9a-f]{8}$/;
const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/;

/** A new VM identifier: `vm-` and 8 hex digits. */
export function newVmId(): string {
  // Not imported above: every command loads this file, and node:crypto takes 4 ms.
  const { randomBytes } = process.getBuiltinModule("node:crypto");
  return `vm-${randomBytes(4).toString("hex")}`;
}

/** Whether the text is a VM identifier. */
export function isVmId(text: string): boolean {
  return VM_ID.test(text);
}

/**
 * A name for a VM. `vm-` and 8 hex digits is refused: it would hide an identifier.
 * @throws ERR_VALIDATION_FLAGS
 */
export function parseName(text: string): string {
  if (NAME.test(text) && !isVmId(text)) return text;
  throw invalid(
    "FLAGS",
    "name",
    text,
    "A name has 1 to 63 characters of a-z, 0-9, '.', '_' and '-', the first a letter or digit, and does not look like a VM's ID.",
    "For example: --name web-1.",
  );
}

/**
 * A VM's identifier or name as given on a command line.
 * @throws ERR_VALIDATION_FLAGS
 */
export function parseVmRef(text: string): string {
  if (isVmId(text) || NAME.test(text)) return text;
  throw invalid(
    "FLAGS",
    "VM",
    text,
    "A VM is named by its ID (vm- and 8 hex digits) or by its name.",
    "Run `vmsan list` to see both.",
  );
}

/** Most networks that one VM is in. */
export const MAX_NETWORKS = 16;
/** Most aliases of a VM in a network. */
export const MAX_ALIASES = 64;

const NETWORK_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/;
const ALIAS = /^[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*$/;
/** Words that mean something else where a network is named. */
const RESERVED = new Set(["none", "host", "bridge", "default", "allow-all", "deny-all", "custom"]);

/** A network's name. @throws ERR_VALIDATION_NETWORK */
export function parseNetworkName(text: string): string {
  if (NETWORK_NAME.test(text) && !RESERVED.has(text)) return text;
  throw invalid(
    "NETWORK",
    "network name",
    text,
    RESERVED.has(text)
      ? `${text} has a meaning of its own, here or in Docker.`
      : "A name has 1 to 128 letters, digits, '.', '_' and '-', the first a letter or digit.",
    "For example: app.",
  );
}

/** A further name of a VM in its networks; as it is compared, in lower case. @throws ERR_VALIDATION_NETWORK */
export function parseAlias(text: string): string {
  const alias = text.toLowerCase();
  if (alias.length <= 253 && ALIAS.test(alias)) return alias;
  throw invalid(
    "NETWORK",
    "network alias",
    text,
    "An alias is a host name: letters, digits, '-' and '_', with dots between parts of at most 63.",
    "For example: db.",
  );
}
