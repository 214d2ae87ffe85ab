/** Where worker threads' code lies. */

/**
 * The URL of a worker's entry file next to the calling one: `.ts` when running from sources, `.js`
 * in a build, which must put the workers' entry files beside its chunks.
 * @param from the caller's import.meta.url
 * @param name file name without extension
 */
export function workerUrl(from: string, name: string): URL {
  return new URL(`./${name}${from.endsWith(".ts") ? ".ts" : ".js"}`, from);
}
