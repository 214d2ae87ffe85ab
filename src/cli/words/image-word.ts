/** Images where a command is expected, as other tools of this kind have them: `vmsan create node:22`. */
import { VmsanError } from "../../model/errors.ts";

/** What names an image and no program: a tag or a digest, a registry before the name, or a source's word. */
const IMAGES = [
  /^(?:[a-z0-9.-]+(?::\d+)?\/)?[a-z0-9][a-z0-9._/-]*(?::[A-Za-z0-9_][\w.-]*|@sha256:[0-9a-f]{64})$/,
  /^[a-z0-9-]+(?:\.[a-z0-9-]+)+(?::\d+)?\/[a-z0-9][a-z0-9._/-]*$/,
  /^(?:oci|oci-archive|docker-archive|docker-daemon|rootfs):./,
];

/**
 * The image that the words of `create` begin with, where that can be no command.
 * @throws ERR_VALIDATION_FLAGS for options behind it, which would be its command's
 */
export function imageIn(words: readonly string[]): string | undefined {
  const [image = "", next = ""] = words;
  if (!IMAGES.some((pattern) => pattern.test(image))) return undefined;
  if (next.startsWith("-") && next !== "--") {
    throw new VmsanError({
      code: "ERR_VALIDATION_FLAGS",
      message: `Cannot use ${next.slice(0, 40)} behind the image`,
      why: "What follows an image is its command.",
      fix: `Put options first: vmsan create ${next.slice(0, 40)} … --from-image ${image}`,
    });
  }
  return image;
}
