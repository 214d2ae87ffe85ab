/** The API key of this tab: handed over in the address once, then kept for the tab alone. */

const PLACE = "vmsan.key";

/**
 * Take a key out of the address (`#key=…`), so that neither history nor reload shows it.
 * @returns whether there was one
 */
export function takeKeyFromAddress(): boolean {
  const match = /^#key=([A-Za-z0-9_]+)(?:&to=(.*))?$/.exec(location.hash);
  if (match === null) return false;
  keepKey(match[1] ?? "");
  history.replaceState(null, "", `${location.pathname}#${decodeURIComponent(match[2] ?? "/")}`);
  return true;
}

/** The key; undefined before somebody has given one. */
export function currentKey(): string | undefined {
  return sessionStorage.getItem(PLACE) ?? undefined;
}

/** Use a key from now on, in this tab, until it is closed. */
export function keepKey(key: string): void {
  sessionStorage.setItem(PLACE, key);
}

/** Forget it. */
export function forgetKey(): void {
  sessionStorage.removeItem(PLACE);
}
