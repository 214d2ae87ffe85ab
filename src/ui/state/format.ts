/** Numbers, times and foreign texts as people read them. */

/** Bytes with a binary unit, three digits. */
export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${Number(value.toFixed(digits))} ${units[unit]}`;
}

/** Milliseconds as `4 d 3 h`, `3 h 12 min`, `12 min`, `42 s`. */
export function duration(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  const [d, h, min] = [Math.floor(s / 86_400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  if (d > 0) return h > 0 ? `${d} d ${h} h` : `${d} d`;
  if (h > 0) return min > 0 ? `${h} h ${min} min` : `${h} h`;
  return min > 0 ? `${min} min` : `${s} s`;
}

/** How long ago. @param now milliseconds since the epoch */
export function ago(time: string, now: number): string {
  const ms = now - Date.parse(time);
  return ms < 5_000 ? "just now" : `${duration(ms)} ago`;
}

/** A moment in full, in the user's words. */
export function moment(time: string): string {
  return new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

/** The time of day. */
export function clock(time: string): string {
  return new Date(time).toLocaleTimeString(undefined, { hour12: false });
}

/**
 * Text of a guest or a registry in one line: without characters that move, hide or reorder what stands
 * around it.
 */
export function plain(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, "\ufffd");
}

/** An image's name without what everybody knows. */
export function shortImage(name: string): string {
  return plain(name).replace(/^docker\.io\/(?:library\/)?/, "");
}
