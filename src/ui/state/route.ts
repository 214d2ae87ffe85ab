/** Where the user is: the address behind `#`, so that a reload and a copied address lead back. */
import { Store } from "./store.ts";

/** The parts of the address behind `#/`. */
function parse(): string[] {
  return location.hash
    .replace(/^#\/?/, "")
    .split("/")
    .filter((segment) => segment !== "")
    .map((segment) => {
      try {
        return decodeURIComponent(segment);
      } catch {
        // Half an escape: taken as it stands.
        return segment;
      }
    });
}

/** The current place. */
export const route = new Store<string[]>(parse());

/** Look at the address again. */
export function syncRoute(): void {
  route.value = parse();
}

addEventListener("hashchange", syncRoute);

/** The address of a place. */
export function to(...segments: string[]): string {
  return `#/${segments.map((segment) => encodeURIComponent(segment)).join("/")}`;
}

/** Go there. @param replace without a step in the browser's history */
export function go(segments: string[], replace = false): void {
  if (!replace) {
    location.hash = to(...segments);
    return;
  }
  history.replaceState(null, "", to(...segments));
  syncRoute();
}
