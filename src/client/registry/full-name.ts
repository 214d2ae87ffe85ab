/** Names of images in full, as they stand in the store. */

/** `docker.io/library/node:22` of `node:22`; undefined: it is no image of a registry. */
export async function fullImageName(text: string): Promise<string | undefined> {
  const { formatReference, parseReference } = await import("../../oci/reference.ts");
  try {
    return formatReference(parseReference(text));
  } catch {
    // ERR_VALIDATION_IMAGE_REF: whoever pulls it says so.
    return undefined;
  }
}
