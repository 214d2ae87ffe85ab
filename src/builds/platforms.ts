/** Platforms that the stages of one build want: most want one, a cross-compiling one two. */
import type { BuildRequest } from "../model/api/builds.ts";
import { formatPlatform, hostPlatform, parsePlatform } from "../oci/images.ts";

/** A platform as it is written everywhere else; undefined for what is none, which buildah says better. */
function plain(text: string): string | undefined {
  try {
    return formatPlatform(parsePlatform(text));
  } catch {
    // ERR_VALIDATION_*: no platform.
    return undefined;
  }
}

/**
 * The platforms of which stages may ask for images: the build's, and where a FROM names one, this host's (which is
 * BUILDPLATFORM) and those that are named. A FROM is not parsed: one platform too many is only looked for.
 */
export function platformsIn({ dockerfile, platform }: BuildRequest): string[] {
  const own = platform === undefined ? formatPlatform(hostPlatform()) : plain(platform);
  const named = [...dockerfile.matchAll(/^\s*from\s+--platform=["']?([^\s"']+)/gim)].map(
    ([, text = ""]) => text,
  );
  if (named.length === 0) return own === undefined ? [] : [own];
  // A variable is one of the others, if it is BUILDPLATFORM or TARGETPLATFORM.
  const plainly = named.filter((text) => !text.includes("$")).map(plain);
  const all = [own, formatPlatform(hostPlatform()), ...plainly];
  return [...new Set(all)].filter((text) => text !== undefined);
}
