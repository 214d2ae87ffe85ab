/** Platforms as indexes and configurations name them (image-index.md), and what runs where. */
import type { Platform } from "../../model/image.ts";
import { imageError } from "../errors.ts";

/** What else an architecture is called: by Node, by `uname -m`, by Debian → Go's name and variant. */
const ALIASES: Readonly<Record<string, readonly [architecture: string, variant?: string]>> = {
  x64: ["amd64"],
  x86_64: ["amd64"],
  "x86-64": ["amd64"],
  aarch64: ["arm64"],
  ia32: ["386"],
  x86: ["386"],
  i386: ["386"],
  i486: ["386"],
  i586: ["386"],
  i686: ["386"],
  armel: ["arm", "v6"],
  armv6l: ["arm", "v6"],
  armhf: ["arm", "v7"],
  armv7l: ["arm", "v7"],
  ppc64el: ["ppc64le"],
  mips64el: ["mips64le"],
  loongarch64: ["loong64"],
};
/** The variant that no variant means. */
const PLAIN: Readonly<Record<string, string>> = { amd64: "v1", arm64: "v8", arm: "v7" };

/**
 * A platform by its usual names, whatever a tool calls it: `x86_64` is `amd64`, variant `8` is
 * `v8`. An empty variant is none.
 */
export function normalizePlatform(platform: Platform): Platform {
  const called = platform.architecture.toLowerCase();
  const [architecture, implied] = Object.hasOwn(ALIASES, called)
    ? (ALIASES[called] ?? [called])
    : [called];
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
  const architecture = process.arch === "ppc64" ? "ppc64le" : process.arch;
  return normalizePlatform({ os: "linux", architecture });
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
