/**
 * What the builder has had from this host or sent to it, by whose builds: that need not be sent again. A digest alone
 * proves nothing, since whoever breaks out of a build's steps may say any: it counts for builds that belong together.
 */
import type { BuildRequest } from "../../model/api/builds.ts";
import type { Digest } from "../../model/image.ts";
import { parseReference } from "../../oci/images.ts";

/** Groups that are remembered, at most; those that have built last. */
const MOST = 1000;

/** Digests that are remembered of one group, at most; more than any one build has. */
const MOST_OF_ONE = 10_000;

/** Digests that are remembered of all groups, at most. */
const MOST_OF_ALL = 100_000;

/** Digests of one group: those that were named last. */
class Known extends Set<Digest> {
  override add(digest: Digest): this {
    super.delete(digest);
    super.add(digest);
    const [oldest] = this;
    if (this.size > MOST_OF_ONE && oldest !== undefined) super.delete(oldest);
    return this;
  }

  /** Whether it is known; what is asked for is named. */
  override has(digest: Digest): boolean {
    if (!super.has(digest)) return false;
    this.add(digest);
    return true;
  }
}

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
    if (group === undefined) return new Known();
    const had = this.#groups.get(group) ?? new Known();
    this.#groups.delete(group);
    this.#groups.set(group, had);
    let digests = 0;
    for (const { size } of this.#groups.values()) digests += size;
    for (const [oldest, { size }] of this.#groups) {
      if (oldest === group || (this.#groups.size <= MOST && digests <= MOST_OF_ALL)) break;
      this.#groups.delete(oldest);
      digests -= size;
    }
    return had;
  }

  /** The builder has nothing any more. */
  clear(): void {
    for (const had of this.#groups.values()) had.clear();
    this.#groups.clear();
  }
}
