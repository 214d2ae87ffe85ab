/** Names that commands of a build find, as clients write them. */
import { isIP } from "node:net";
import { invalid } from "../../util/units.ts";

/**
 * `NAME:ADDRESS` words (or with `=`, as newer Dockers have it) as a map: a name may have several addresses, one of each
 * family for example. @throws ERR_VALIDATION_FLAGS
 */
export function hostsOf(words: readonly string[] = []): Record<string, string[]> {
  const hosts = new Map<string, string[]>();
  for (const word of words) {
    const [, name = "", address = ""] = /^([^:=]+)[:=]\[?([^\]]+)\]?$/.exec(word) ?? [];
    if (isIP(address) === 0) {
      throw invalid(
        "FLAGS",
        "--add-host",
        word,
        "It is no NAME:ADDRESS.",
        address === "host-gateway"
          ? "This host is host.vmsan.internal: name that, with --allow-host-port."
          : "Give for example --add-host db.test:10.0.0.7.",
      );
    }
    hosts.set(name, [...(hosts.get(name) ?? []), address]);
  }
  return Object.fromEntries(hosts);
}
