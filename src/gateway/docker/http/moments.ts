/** Moments as clients write them. */
import { DockerError } from "../errors.ts";
import type { Filters } from "./filters.ts";

/** Milliseconds of the units of Go's durations. */
const UNITS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** A moment: seconds with a fraction, or RFC 3339. Undefined: none was given. @throws 400 */
export function parseMoment(text: string): number | undefined {
  if (text === "" || text === "0") return undefined;
  const number = Number(text);
  if (Number.isFinite(number)) return number;
  // A day alone is that of this host, as every other time without a zone is.
  const time = Date.parse(/^\d{4}-\d\d-\d\d$/.test(text) ? `${text}T00:00:00` : text);
  if (!Number.isNaN(time)) return time / 1000;
  throw new DockerError(400, `invalid time: ${text.slice(0, 100)}`);
}

/** A span of time as Go writes it, `1h30m`, in milliseconds; undefined: it is none. */
function spanOf(text: string): number | undefined {
  if (!/^(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+$/.test(text)) return undefined;
  const parts = text.matchAll(/(\d+(?:\.\d+)?)([a-zµ]+)/g);
  return [...parts].reduce(
    (sum, [, count, unit = ""]) => sum + Number(count) * (UNITS[unit] ?? 0),
    0,
  );
}

/**
 * The filter `until` of what is to be removed, as milliseconds since the epoch: a span before now, or a moment.
 * Without it everything is as old as that. @throws 400
 */
export function untilOf(filters: Filters, name = "until"): number {
  const wishes = filters.of(name);
  if (wishes === undefined) return Infinity;
  const [wish = "", another] = wishes;
  if (another !== undefined) throw new DockerError(400, `more than one ${name} filter specified`);
  const span = spanOf(wish);
  if (span !== undefined) return Date.now() - span;
  const moment = parseMoment(wish);
  if (moment === undefined) throw new DockerError(400, `invalid time: ${wish.slice(0, 100)}`);
  return moment * 1000;
}
