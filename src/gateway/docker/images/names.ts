/** Names of images as Docker's users write and read them. */

const HUB = "docker.io/";

/** A spelt-out name as people read it: `docker.io/library/node:22` is `node:22`. */
export function familiar(name: string): string {
  if (!name.startsWith(HUB)) return name;
  const rest = name.slice(HUB.length);
  const own = rest.slice("library/".length);
  return rest.startsWith("library/") && !own.includes("/") ? own : rest;
}

/** Repository and tag, as two arguments, as one name. A digest as tag is one. */
export function joinName(repository: string, tag: string): string {
  if (tag === "") return repository;
  return tag.startsWith("sha256:") ? `${repository}@${tag}` : `${repository}:${tag}`;
}

/** A name with a tag, as people read it: what an error calls an image that is not there. */
export function withTag(name: string): string {
  const plain = familiar(name);
  const last = plain.slice(plain.lastIndexOf("/") + 1);
  return /[:@]/.test(last) ? plain : `${plain}:latest`;
}

/** The repository of a name. */
export function repositoryOf(name: string): string {
  const whole = name.split("@", 1)[0] ?? name;
  const colon = whole.lastIndexOf(":");
  return colon > whole.lastIndexOf("/") ? whole.slice(0, colon) : whole;
}

/** Twelve digits of an ID. */
export function shortId(id: string): string {
  return id.replace(/^sha256:/, "").slice(0, 12);
}

/** Whether a name of the store is one of a registry, and not where an image was read from. */
export function isReference(name: string): boolean {
  return !/^(?:oci|oci-archive|docker-archive|docker-daemon|rootfs):/.test(name);
}
