/** Which manifest of an index is for this machine (image-index.md, platform variants). */
import type { Platform } from "../../model/image.ts";
import { imageError } from "../errors.ts";

/** Node's name of an architecture → Go's. */
const ARCHITECTURES: Record<string, string> = {
  x64: "amd64",
  arm64: "arm64",
  arm: "arm",
  ia32: "386",
  riscv64: "riscv64",
  ppc64: "ppc64le",
  s390x: "s390x",
};

/** The platform of this host's guests. */
export function hostPlatform(): Platform {
  return { os: "linux", architecture: ARCHITECTURES[process.arch] ?? process.arch };
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
  const [os = "", architecture, variant] = parts.length === 1 ? ["linux", text] : parts;
  const alias: Record<string, string> = { x86_64: "amd64", aarch64: "arm64", i386: "386" };
  const name = architecture ?? "";
  return {
    os,
    architecture: alias[name] ?? name,
    ...(variant === undefined ? {} : { variant }),
  };
}

/** `linux/arm64/v8`. */
export function formatPlatform(platform: Platform): string {
  const variant = platform.variant === undefined ? "" : `/${platform.variant}`;
  return `${platform.os}/${platform.architecture}${variant}`;
}

/** The variant that no variant means. */
function variantOf(platform: Platform): string {
  if (platform.variant !== undefined && platform.variant !== "") return platform.variant;
  if (platform.architecture === "arm64") return "v8";
  if (platform.architecture === "arm") return "v7";
  if (platform.architecture === "amd64") return "v1";
  return "";
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
  if (offered.os !== wanted.os || offered.architecture !== wanted.architecture) return 0;
  const want = variantOf(wanted);
  const have = variantOf(offered);
  if (want === have) return 1000;
  const known = level(want) > 0 && level(have) > 0;
  return known && level(have) < level(want) ? level(have) : 0;
}
