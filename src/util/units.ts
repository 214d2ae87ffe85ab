/** What people type for sizes, times and numbers, and nothing else: garbage is an error. */
import { VmsanError } from "../model/errors.ts";
import type { ProgressEvent } from "../model/progress.ts";

const MIB = 1024 * 1024;

/** A validation error that names the value. */
export function invalid(
  kind: string,
  what: string,
  value: unknown,
  why: string,
  fix: string,
): VmsanError {
  return new VmsanError({
    code: `ERR_VALIDATION_${kind}`,
    message: `Invalid ${what}: ${JSON.stringify(value)}`,
    why,
    fix,
  });
}

/** Have a certificate and its key both, or neither. @throws ERR_VALIDATION_FLAGS */
export function checkTlsFiles(cert: string | undefined, key: string | undefined): void {
  if ((cert === undefined) === (key === undefined)) return;
  throw invalid(
    "FLAGS",
    "certificate",
    cert ?? key ?? "",
    "A certificate and its key go together.",
    "Give both --tls-cert and --tls-key.",
  );
}

/**
 * A whole number in decimal digits.
 * @throws ERR_VALIDATION_INTEGER
 */
export function parseInteger(
  what: string,
  value: string | number,
  min: number,
  max: number,
): number {
  const text = String(value);
  const number = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (number >= min && number <= max) return number;
  throw invalid(
    "INTEGER",
    what,
    value,
    `It takes a whole number from ${min} to ${max}, in decimal digits.`,
    `Give a number from ${min} to ${max}.`,
  );
}

/**
 * Memory in MiB: `512`, `512m`, `2g`; that of a guest unless other bounds are given, in MiB.
 * @throws ERR_VALIDATION_INTEGER
 */
export function parseMemory(
  value: string | number,
  min = 128,
  max = 32_768,
  what = "memory",
): number {
  const match = /^(\d{1,10})(m|mb|mib|g|gb|gib)?$/i.exec(String(value));
  const factor = match?.[2]?.toLowerCase().startsWith("g") === true ? 1024 : 1;
  const mib = match === null ? Number.NaN : Number(match[1]) * factor;
  if (mib >= min && mib <= max) return mib;
  throw invalid(
    "INTEGER",
    what,
    value,
    `It takes MiB from ${min} to ${max}, or a number with m or g.`,
    "For example: 512, 512m, 2g.",
  );
}

/**
 * Disk size in bytes: `10`, `10g`, `10gb`, `10gib` (GiB), `1t`; of one disk unless other bounds are given, in GiB.
 * @throws ERR_VALIDATION_DISK_SIZE
 */
export function parseDiskSize(
  value: string | number,
  min = 1,
  max = 1024,
  what = "disk size",
): number {
  const match = /^(\d{1,7})(g|gb|gib|t|tb|tib)?$/i.exec(String(value));
  const factor = match?.[2]?.toLowerCase().startsWith("t") === true ? 1024 : 1;
  const gib = match === null ? Number.NaN : Number(match[1]) * factor;
  if (gib >= min && gib <= max) return gib * 1024 * MIB;
  throw invalid(
    "DISK_SIZE",
    what,
    value,
    `It takes whole GiB from ${min} to ${max}.`,
    "For example: 10, 10g, 10gb.",
  );
}

const UNIT_MS: Record<string, number> = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1000 };

/**
 * A duration in milliseconds: `30s`, `5m`, `1h`, `2h30m`, `1d`; a bare number is minutes.
 * @throws ERR_VALIDATION_DURATION
 */
export function parseDuration(value: string | number): number {
  const text = String(value);
  let total = Number.NaN;
  if (/^\d{1,6}$/.test(text)) total = Number(text) * 60_000;
  else if (/^(?=\d)(\d{1,2}d)?(\d{1,6}h)?(\d{1,6}m)?(\d{1,6}s)?$/.test(text)) {
    total = 0;
    for (const [, count, unit] of text.matchAll(/(\d+)([dhms])/g)) {
      total += Number(count) * (UNIT_MS[unit ?? ""] ?? 0);
    }
  }
  // setTimeout's own bound, about 24.8 days.
  if (total > 0 && total <= 2 ** 31 - 1) return total;
  throw invalid(
    "DURATION",
    "duration",
    value,
    "It takes days, hours, minutes and seconds, more than none and 24 days at most.",
    "For example: 30s, 5m, 1h, 2h30m, 1d; a bare number is minutes.",
  );
}

/** Milliseconds as {@link parseDuration} takes them, to the second: `2h30m`, `12s`. */
export function formatDuration(ms: number): string {
  let left = Math.max(1, Math.round(ms / 1000));
  let text = "";
  for (const [unit, seconds] of [
    ["h", 3600],
    ["m", 60],
    ["s", 1],
  ] as const) {
    const count = Math.floor(left / seconds);
    if (count > 0) text += `${count}${unit}`;
    left -= count * seconds;
  }
  return text;
}

/** Bytes as people read them. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 1 : 0)} ${units[unit]}`;
}

/** How much of how much, as far as a step of long work says. */
export function formatAmount({ done, total, unit }: ProgressEvent): string {
  if (done === undefined) return "";
  const show = (n: number): string => (unit === "bytes" ? formatBytes(n) : String(n));
  return total !== undefined && total > 0 ? `${show(done)} of ${show(total)}` : show(done);
}

/** A step of long work as people read it. */
export function formatProgress(event: ProgressEvent): string {
  const parts = [event.phase, event.item, event.message, formatAmount(event)];
  return parts.filter((part) => part !== undefined && part !== "").join(" ");
}
