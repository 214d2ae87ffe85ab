/** Images as clients see them. */
import { imageHealth } from "../containers/request/config.ts";
import { DockerError } from "../errors.ts";
import type { Filters } from "../http/filters.ts";
import { untilOf } from "../http/moments.ts";
import type { KnownImage } from "./catalogue.ts";
import { familiar, repositoryOf, withTag } from "./names.ts";

/** When an image was made, in milliseconds since the epoch; 0 where it does not say. */
export function createdOf({ details, view }: KnownImage): number {
  const text = details.created ?? view.created;
  return text === undefined ? 0 : Date.parse(text) || 0;
}

/** Names with the manifest's digest, as a registry serves it. */
function digestsOf({ names, digest }: KnownImage): string[] {
  return [...new Set(names.map((name) => `${repositoryOf(name)}@${digest}`))];
}

/** Names with a tag. */
function tagsOf({ names }: KnownImage): string[] {
  return names.filter((name) => !name.includes("@"));
}

/** An image as one of a list. @param containers how many are made of it */
export function summaryOf(image: KnownImage, containers: number): object {
  const { details, view } = image;
  return {
    Id: image.id,
    ParentId: "",
    RepoTags: tagsOf(image),
    RepoDigests: digestsOf(image),
    Created: Math.floor(createdOf(image) / 1000),
    Size: view.sizeBytes,
    SharedSize: -1,
    Labels: details.config.labels,
    Containers: containers,
  };
}

/** An image in full. */
export function imageView(image: KnownImage): object {
  const { details, view } = image;
  const { config } = details;
  const health = imageHealth(config);
  const [os = "linux", architecture = "", variant] = view.platform.split("/");
  const keysOf = (names: readonly string[]): Record<string, object> | null =>
    names.length === 0 ? null : Object.fromEntries(names.map((name) => [name, {}]));
  return {
    Id: image.id,
    RepoTags: tagsOf(image),
    RepoDigests: digestsOf(image),
    Parent: "",
    Comment: details.comment ?? "",
    Created: details.created ?? view.created ?? "1970-01-01T00:00:00Z",
    DockerVersion: "",
    Author: details.author ?? "",
    Config: {
      User: config.user,
      ExposedPorts: keysOf(config.exposedPorts),
      Env: config.env,
      Cmd: config.cmd.length === 0 ? null : config.cmd,
      Entrypoint: config.entrypoint.length === 0 ? null : config.entrypoint,
      WorkingDir: config.workingDir,
      Volumes: keysOf(config.volumes),
      Labels: config.labels,
      OnBuild: null,
      ...(config.stopSignal === undefined ? {} : { StopSignal: config.stopSignal }),
      ...(health === undefined ? {} : { Healthcheck: health }),
    },
    Architecture: architecture,
    ...(variant === undefined ? {} : { Variant: variant }),
    Os: os,
    Size: view.sizeBytes,
    GraphDriver: { Name: "vmsan", Data: null },
    RootFS: { Type: "layers", Layers: details.layers.map(({ diffId }) => diffId) },
    Metadata: { LastTagTime: "0001-01-01T00:00:00Z" },
  };
}

/** Whether a name fits a pattern with `*` and `?`. */
function fitsPattern(pattern: string, name: string): boolean {
  const source = pattern
    .slice(0, 300)
    .replaceAll(/[.+^${}()|[\]\\]/g, "\\$&")
    .replaceAll(/\*+/g, "[^/]*")
    .replaceAll("?", "[^/]");
  return new RegExp(`^${source}$`).test(name);
}

/** An image with those of its names that a list by `reference` is about. */
export function withWantedNames(image: KnownImage, filters: Filters): KnownImage {
  const wanted = (name: string): boolean =>
    filters.allows("reference", (wish) => {
      const pattern = familiar(wish);
      return fitsPattern(pattern, name) || fitsPattern(pattern, repositoryOf(name));
    });
  return { ...image, names: image.names.filter(wanted) };
}

/** Filters of lists of images. */
export const IMAGE_FILTERS = [
  "before",
  "dangling",
  "label",
  "label!",
  "reference",
  "since",
  "until",
];

/** Whether an image is among those asked for. @throws 404 */
export function isWantedImage(
  image: KnownImage,
  filters: Filters,
  all: readonly KnownImage[],
): boolean {
  const until = untilOf(filters);
  const other = (wish: string): number => {
    const found = all.find(({ names, id }) => names.includes(withTag(wish)) || id.includes(wish));
    if (found === undefined)
      throw new DockerError(404, `No such image: ${withTag(wish.slice(0, 200))}`);
    return createdOf(found);
  };
  return (
    filters.allows(
      "dangling",
      (wish) => ["true", "1"].includes(wish) === (image.names.length === 0),
    ) &&
    (filters.of("reference") === undefined || withWantedNames(image, filters).names.length > 0) &&
    filters.allows("before", (wish) => createdOf(image) < other(wish)) &&
    filters.allows("since", (wish) => createdOf(image) > other(wish)) &&
    createdOf(image) <= until &&
    filters.allowsLabels(image.details.config.labels)
  );
}
