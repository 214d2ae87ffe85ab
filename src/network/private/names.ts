/** Names of private networks' members, as one VM's name server gives them out. */
import { normalName } from "../policy/judge.ts";
import { cidr, contains, parseAddress } from "../policy/cidr.ts";
import type { PrivateLink } from "./links.ts";

/** A member of a network. */
export interface Peer {
  /** The network's name. */
  network: string;
  address: string;
  /** The VM's own name or ID first, then its others. */
  names: readonly string[];
}

/** What a name server asks. */
export interface PeerNames {
  /** Addresses of a name, `NAME` or `NAME.NETWORK`; undefined when no member has it. */
  addressesOf: (name: string) => string[] | undefined;
  /** Names of an address, none when no member has it; undefined when it is of no network of the VM's. */
  namesOf: (address: string) => string[] | undefined;
}

/** The address that a name below in-addr.arpa asks about. */
export function pointedAt(name: string): string | undefined {
  const match = /^((?:\d{1,3}\.){4})in-addr\.arpa$/.exec(name);
  return match?.[1]?.split(".").slice(0, 4).toReversed().join(".");
}

/**
 * Answers for one VM.
 * @param peers who is in its networks, at the moment of a question
 * @param links its ways into them
 */
export function peerNames(
  peers: () => readonly Peer[],
  links: () => readonly PrivateLink[],
): PeerNames {
  return {
    addressesOf: (name) => {
      if (links().length === 0) return undefined;
      const found = peers().filter(({ names, network }) =>
        names.some((each) => {
          const own = normalName(each);
          return name === own || name === `${own}.${normalName(network)}`;
        }),
      );
      return found.length === 0 ? undefined : [...new Set(found.map(({ address }) => address))];
    },
    namesOf: (text) => {
      const address = parseAddress(text);
      const link = links().find(
        ({ subnet }) => address !== undefined && contains(cidr(subnet), address),
      );
      if (link === undefined) return undefined;
      const found = peers().filter(
        (peer) => peer.address === text && peer.network === link.network,
      );
      return found.map(({ names, network }) => `${names[0] ?? ""}.${network}`);
    },
  };
}
