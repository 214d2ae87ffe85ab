/** Kubernetes' quantities: `100m`, `1.5`, `512Mi`, `2e9`. Pure. */

const SUFFIXES: Record<string, number> = {
  n: 1e-9,
  u: 1e-6,
  m: 1e-3,
  "": 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  E: 1e18,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
  Ei: 2 ** 60,
};

/** A quantity as a number of its unit (processors, bytes); undefined: it is none. */
export function parseQuantity(value: string | number): number | undefined {
  if (typeof value === "number") return value >= 0 ? value : undefined;
  const match =
    /^\+?(\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:([eE][+-]?\d{1,3})|([a-zA-Z]{0,2}))$/.exec(value);
  if (match === null) return undefined;
  const factor = match[2] === undefined ? SUFFIXES[match[3] ?? ""] : Number(`1${match[2]}`);
  return factor === undefined ? undefined : Number(match[1]) * factor;
}
