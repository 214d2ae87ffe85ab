/**
 * What the builder has had from this host or sent to it, by whose builds: that need not be sent again. A digest alone
 * proves nothing, since whoever breaks out of a build's steps may say any: it counts for builds that belong together.
 */
import type { BuildRequest } from "../model/api.ts";
import type { Digest } from "../model/image.ts";
import { parseReference } from "../oci/images.ts";

/** Groups that are remembered, at most; those that have built last. */
const MOST = 1000;

/**
 * Which builds belong together: those whose results have the same names but for the tag, or without names those of the
 * same place. Both are said by who asks for the build, never by what is built.
 * @returns undefined for a build that belongs to no other
 */
export function groupOf({ tags, place }: Pick<BuildRequest, "tags" | "place">): string | undefined {
  if (tags.length === 0) return place === undefined ? undefined : `in ${place}`;
  const names = tags.map((tag) => {
    const { registry, repository } = parseReference(tag);
    return `${registry}/${repository}`;
  });
  return `as ${[...new Set(names)].toSorted().join(" ")}`;
}

/** Digests by group, for as long as the daemon runs and the builder has its cache. */
export class Had {
  readonly #groups = new Map<string, Set<Digest>>();

  /** What builds of this group have had; what is added to it counts for the next ones. */
  of(group: string | undefined): Set<Digest> {
    if (group === undefined) return new Set();
    const had = this.#groups.get(group) ?? new Set();
    this.#groups.delete(group);
    this.#groups.set(group, had);
    const [oldest] = this.#groups.keys();
    if (this.#groups.size > MOST && oldest !== undefined) this.#groups.delete(oldest);
    return had;
  }

  /** The builder has nothing any more. */
  clear(): void {
    for (const had of this.#groups.values()) had.clear();
    this.#groups.clear();
  }
}
