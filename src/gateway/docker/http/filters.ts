/** The `filters` of lists: a map of lists, or of maps whose keys count. */
import { DockerError } from "../errors.ts";

/** Values by filter; several of one are alternatives, but for labels. */
export class Filters {
  private readonly values: Map<string, string[]>;

  constructor(values: Map<string, string[]> = new Map()) {
    this.values = values;
  }

  /** What was asked for of one filter; undefined: nothing. */
  of(name: string): string[] | undefined {
    return this.values.get(name);
  }

  /** Whether one of the values fits, or none was asked for. */
  allows(name: string, fits: (value: string) => boolean): boolean {
    return this.values.get(name)?.some(fits) ?? true;
  }

  /** Whether labels have all that was asked for: `KEY`, `KEY=VALUE`, and none that must not be. */
  allowsLabels(labels: Record<string, string>): boolean {
    const has = (wish: string): boolean => {
      const at = wish.indexOf("=");
      if (at < 0) return Object.hasOwn(labels, wish);
      const key = wish.slice(0, at);
      return Object.hasOwn(labels, key) && labels[key] === wish.slice(at + 1);
    };
    return (
      (this.values.get("label") ?? []).every(has) && !(this.values.get("label!") ?? []).some(has)
    );
  }

  /** In the form of a query, with one more label that must be there. */
  withLabel(label: string): string {
    const labels = [...(this.of("label") ?? []), label];
    return JSON.stringify({ ...Object.fromEntries(this.values), label: labels });
  }

  /** @throws 400 for a filter that is none of these */
  only(known: readonly string[]): this {
    for (const name of this.values.keys()) {
      if (!known.includes(name))
        throw new DockerError(400, `invalid filter '${name.slice(0, 100)}'`);
    }
    return this;
  }
}

/** Read the parameter; an empty one is no filter. @throws 400 */
export function parseFilters(text: string | null): Filters {
  if (text === null || text === "") return new Filters();
  let given: unknown;
  try {
    given = JSON.parse(text);
  } catch (error) {
    throw new DockerError(400, "invalid filters: they are no JSON", error);
  }
  if (typeof given !== "object" || given === null) return new Filters();
  const values = new Map<string, string[]>();
  for (const [name, wish] of Object.entries(given)) {
    if (Array.isArray(wish)) values.set(name, wish.map(String));
    else if (typeof wish === "object" && wish !== null) {
      const chosen = Object.entries(wish).filter(([, on]) => on === true);
      values.set(
        name,
        chosen.map(([value]) => value),
      );
    } else if (typeof wish === "string") values.set(name, [wish]);
    else throw new DockerError(400, `invalid filter '${name.slice(0, 100)}'`);
  }
  for (const [name, list] of values) if (list.length === 0) values.delete(name);
  return new Filters(values);
}
