/** Platforms as indexes and configurations name them (image-index.md), and what runs where. */
import type { Platform } from "../../model/image.ts";
import { architectureOf, hostArchitecture } from "../../util/hosts/architecture.ts";
import { imageError } from "../errors.ts";

/** The variant that no variant means. */
const PLAIN: Readonly<Record<string, string>> = { amd64: "v1", arm64: "v8", arm: "v7" };

/**
 * A platform by its usual names, whatever a tool calls it: `x86_64` is `amd64`, variant `8` is
 * `v8`. An empty variant is none.
 */
export function normalizePlatform(platform: Platform): Platform {
  const [architecture, implied] = architectureOf(platform.architecture);
  const given = (platform.variant ?? "").toLowerCase().replace(/^(?=\d)/, "v");
  const variant = given === "" ? implied : given;
  return {
    os: platform.os.toLowerCase(),
    architecture,
    ...(variant === undefined ? {} : { variant }),
  };
}

/** The platform of this host's guests. */
export function hostPlatform(): Platform {
  return { os: "linux", architecture: hostArchitecture() };
}

/** Parse `os/arch[/variant]` or just `arch`. Throws ERR_VALIDATION_PLATFORM. */
export function parsePlatform(text: string): Platform {
  const parts = text.split("/");
  const bad = parts.length > 3 || parts.some((part) => !/^[A-Za-z0-9._-]{1,64}$/.test(part));
  if (bad) {
    throw imageError(
      "ERR_VALIDATION_PLATFORM",
      `Cannot use ${JSON.stringify(text)} as a platform`,
      "It is not os/architecture or os/architecture/variant.",
      "Write it like linux/amd64 or linux/arm64/v8.",
    );
  }
  const [os = "", architecture = "", variant] = parts.length === 1 ? ["linux", text] : parts;
  return normalizePlatform({
    os,
    architecture,
    ...(variant === undefined ? {} : { variant }),
  });
}

/** `linux/arm64/v8`. */
export function formatPlatform(platform: Platform): string {
  const variant = platform.variant === undefined ? "" : `/${platform.variant}`;
  return `${platform.os}/${platform.architecture}${variant}`;
}

/** The number in `v7`; 0 when there is none. */
function level(variant: string): number {
  return Number(/^v(\d+)/.exec(variant)?.[1] ?? 0);
}

/**
 * How well `offered` runs where `wanted` is asked for: 0 not at all, more is better.
 * A lower variant of the same architecture runs, a higher one does not.
 */
export function platformScore(wanted: Platform, offered: Platform): number {
  const [want, have] = [normalizePlatform(wanted), normalizePlatform(offered)];
  if (have.os !== want.os || have.architecture !== want.architecture) return 0;
  const plain = PLAIN[want.architecture] ?? "";
  const [wantVariant, haveVariant] = [want.variant ?? plain, have.variant ?? plain];
  if (wantVariant === haveVariant) return 1000;
  const known = level(wantVariant) > 0 && level(haveVariant) > 0;
  return known && level(haveVariant) < level(wantVariant) ? level(haveVariant) : 0;
}
