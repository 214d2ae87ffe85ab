/** Names and pages as clients of E2B write them. */

/** A name without its project and the tag `default`. */
export function bareName(name: string, project: string): string {
  const text = name.replace(/:default$/, "");
  return text.startsWith(`${project}/`) ? text.slice(project.length + 1) : text;
}

/**
 * One page of a list.
 * @param query `limit`, and `nextToken` as the page before gave it
 * @param keyOf orders and names an item
 * @param sign 1: ascending; -1: descending
 */
export function page<T>(
  all: readonly T[],
  query: URLSearchParams,
  keyOf: (item: T) => string,
  sign: 1 | -1,
): { items: T[]; nextToken?: string } {
  const limit = Math.min(Math.max(1, Number(query.get("limit") ?? 100) || 100), 1000);
  const from = query.get("nextToken");
  const compare = (a: string, b: string): number => (a === b ? 0 : a < b ? -sign : sign);
  const rest = all
    .filter((item) => from === null || compare(keyOf(item), from) >= 0)
    .toSorted((a, b) => compare(keyOf(a), keyOf(b)));
  const next = rest[limit];
  return {
    items: rest.slice(0, limit),
    ...(next === undefined ? {} : { nextToken: keyOf(next) }),
  };
}
